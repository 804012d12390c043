/* Runs a model on an emulated Cortex-M: inputs from one file, outputs and measurements to others, by semihosting
   (Arm, "Semihosting for AArch32 and AArch64", 2.0).

   inputs.bin   as many inputs as there are, float32
   outputs.bin  as many outputs, float32
   ticks.bin    uint32 for each input: ticks of the timer that the model took
   stack.bin    uint32: bytes of stack below this program's own that the model touched, over all inputs

   The timer of the board counts 25 million ticks a second of the emulator's time. Under `-icount shift=0` that time goes
   on by 1 ns with each instruction, so that one tick is 40 instructions. Instructions are not cycles. */
#include <stdint.h>

#include "model.h"

enum { OPEN = 0x01, CLOSE = 0x02, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };
#define EXITED ((const void *)0x20026)
#define FAILED ((const void *)0x20023)
#define PAINT 0xa5c3e187u
#define TIMER ((volatile uint32_t *)0x40000000u)

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_bottom[], stack_top[];

static float input[MODEL_INPUTS], output[MODEL_OUTPUTS];

static int32_t host(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

static void fail(const char *why) {
    host(WRITE0, why);
    host(EXIT, FAILED);
    for (;;) {
    }
}

static uint32_t length(const char *text) {
    uint32_t count = 0;
    while (text[count]) {
        ++count;
    }
    return count;
}

static int32_t open_file(const char *name, uint32_t mode) {
    const uintptr_t given[3] = {(uintptr_t)name, mode, length(name)};
    const int32_t file = host(OPEN, given);
    if (file < 0) {
        fail("a file does not open\n");
    }
    return file;
}

static void write_file(int32_t file, const void *from, uint32_t bytes) {
    const uintptr_t given[3] = {(uintptr_t)file, (uintptr_t)from, bytes};
    if (host(WRITE, given)) {
        fail("a file takes no more\n");
    }
}

static int read_input(int32_t file) {
    const uintptr_t given[3] = {(uintptr_t)file, (uintptr_t)input, sizeof input};
    const int32_t missing = host(READ, given);
    if (missing && missing != (int32_t)sizeof input) {
        fail("the inputs end within one\n");
    }
    return missing == 0;
}

/* The least address that the model has written to since `paint`. */
static uint32_t *deepest(uint32_t *from) {
    uint32_t *place = stack_bottom;
    while (place < from && *place == PAINT) {
        ++place;
    }
    return place;
}

__attribute__((noinline)) static void all_inputs(void) {
    uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *place = stack_bottom; place < here - 64; ++place) {
        *place = PAINT;
    }
    const int32_t inputs = open_file("inputs.bin", READ_BINARY), outputs = open_file("outputs.bin", WRITE_BINARY);
    const int32_t times = open_file("ticks.bin", WRITE_BINARY), stack = open_file("stack.bin", WRITE_BINARY);
    while (read_input(inputs)) {
        const uint32_t before = TIMER[1];
        model_run(input, output);
        const uint32_t ticks = before - TIMER[1];
        write_file(outputs, output, sizeof output);
        write_file(times, &ticks, sizeof ticks);
    }
    const uint32_t bytes = (uint32_t)((uintptr_t)here - (uintptr_t)deepest(here));
    write_file(stack, &bytes, sizeof bytes);
    host(CLOSE, (const uintptr_t[1]){(uintptr_t)outputs});
    host(CLOSE, (const uintptr_t[1]){(uintptr_t)times});
    host(CLOSE, (const uintptr_t[1]){(uintptr_t)stack});
}

void reset(void) {
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the floating-point unit on */
    __asm__ volatile("dsb\n isb");
#endif
    for (uint32_t *to = data_start, *from = data_load; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    TIMER[2] = 0xffffffffu; /* reload */
    TIMER[1] = 0xffffffffu; /* value */
    TIMER[0] = 1;           /* on */
    all_inputs();
    host(EXIT, EXITED);
    for (;;) {
    }
}

static void fault(void) { fail("a fault, as of a stack that is too small\n"); }

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};
