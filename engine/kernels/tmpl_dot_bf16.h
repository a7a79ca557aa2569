/* BF16_DOT by the instruction that multiplies pairs of bfloat16 and adds them to a float32 sum
 * (AVX-512 BF16): twice the multiply-adds of float32.
 *
 * Tiles are those of tmpl_float.h with records of 32 columns in bfloat16. The instruction adds the
 * second product of a pair first and counts denormal numbers as 0 (Intel SDM, VDPBF16PS), so bits
 * differ from those of other instruction sets; a row's are the same in every tile. Included after
 * tmpl_float.h. */

#define HAS_BF16 __attribute__((target("avx512bf16")))
enum { PAIR_COLS = 32 };

/* Spreads the pair at x itself, which compilers make two instructions of. */
INLINE vf dot_of_pair(vf acc, vi w, const uint8_t *x)
{
    typedef int32_t __attribute__((aligned(1), may_alias)) word;
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const word *)x));
    return acc;
}

/* Two registers of floats as bfloat16: a, then b. */
INLINE vi pairs_of(vf a, vf b)
{
    vi r;
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(r) : "v"(b), "v"(a));
    return r;
}

INLINE void step_bf16_pairs(const uint8_t *w, size_t stride, const uint8_t *x, int nt, int ng,
                            vf *acc)
{
    vi pair[4];
    UNROLL for (int g = 0; g < ng; g++) pair[g] = vi_load(w + (size_t)g * stride);
    UNROLL for (int t = 0; t < nt; t++)
    {
        UNROLL for (int g = 0; g < ng; g++) acc[g * nt + t] =
            dot_of_pair(acc[g * nt + t], pair[g], x + t * FLOAT_BYTES);
    }
}

INLINE void tile_bf16_pairs(const struct float_part *p, int nt, int ng)
{
    float_tile(step_bf16_pairs, 4, 4, p->n_cols / 2, p, nt, ng);
}

FLOAT_PANEL(bf16_pairs, 2, HAS_BF16)

static HAS_BF16 void pair_records(const float *x, size_t ldx, size_t nt, size_t n_cols, float *out)
{
    for (size_t k = 0; k < n_cols; k += PAIR_COLS)
        for (size_t t = 0; t < nt; t++, out += FLOAT_COLS) {
            const float *row = x + t * ldx + k;
            size_t left = n_cols - k;
            float rest[PAIR_COLS] = {0};
            if (left < PAIR_COLS)
                row = memcpy(rest, row, left * sizeof *row);
            vi pairs = pairs_of(vf_load(row), vf_load(row + LANES));
            memcpy(out, &pairs, sizeof pairs);
        }
}
