/* skein-tiny inside the program.
 *
 * The assembler copies the file into read-only data. It is paged in from the executable like any
 * mapped file, so a box that never runs it never holds it. The alignment of 64 bytes is that of the
 * vector units and more than GGUF's own 32. SKEIN_DEMO_FILE is the path, given by the build. */
#include "engine/engine.h"

__asm__(".section .rodata.skein_demo, \"a\", %progbits\n"
        ".balign 64\n"
        ".globl skein_demo_begin\n"
        ".hidden skein_demo_begin\n"
        "skein_demo_begin:\n"
        ".incbin \"" SKEIN_DEMO_FILE "\"\n"
        ".globl skein_demo_end\n"
        ".hidden skein_demo_end\n"
        "skein_demo_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const unsigned char skein_demo_begin[];
extern const unsigned char skein_demo_end[];

void model_demo(const void **data, size_t *size_bytes)
{
    *data = skein_demo_begin;
    *size_bytes = (size_t)(skein_demo_end - skein_demo_begin);
}
