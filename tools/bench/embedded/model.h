/* What stands between the generated code and what runs it. MODEL_INPUTS and MODEL_OUTPUTS are numbers of elements. */
void model_run(const float *input, float *output);
