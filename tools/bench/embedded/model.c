/* The generated code, under one name and one type whatever its shapes are. Without MODEL_SOURCE it is a model that does
   nothing, whose size is that of everything else. */
#include "model.h"

#ifdef MODEL_SOURCE
#include MODEL_SOURCE
void model_run(const float *input, float *output) { model((const void *)input, (void *)output); }
#else
void model_run(const float *input, float *output) {
    (void)input;
    (void)output;
}
#endif
