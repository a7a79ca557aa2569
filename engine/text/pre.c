/* Pre-tokenizers: how byte-level vocabularies cut text into pieces before merging.
 *
 * A file names its pre-tokenizer in tokenizer.ggml.pre. Each name stands for a list of patterns,
 * applied one after the other: every match and every gap between matches becomes a piece, which the
 * next pattern cuts further. The patterns are those of the models' own tokenizer.json files,
 * written for PCRE2 with Unicode properties; two kinds of change were made:
 *
 * - GGUF files are made and run with llama.cpp, whose patterns differ from the originals for some
 *   models (letters of both cases told apart for a-z only in tekken and gpt-4o; words joined by
 *   blanks in exaone-moe). A user expects the ids that the file gives elsewhere, and our recorded
 *   reference holds those; where the two differ, the form that the reference gives is used.
 * - Repeated groups became character classes or possessive loops, so that a megabyte of one letter
 *   needs no stack.
 *
 * \s here is Unicode's White_Space and \d is ASCII, spelled out, because PCRE2's \s also takes
 * U+180E. */
#include "engine/text/vocab.h"

#include <string.h>

#define WS                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define SP              "[" WS "]"
#define NSP             "[^" WS "]"
#define L               "\\p{L}"
#define N               "\\p{N}"
#define TAIL_SPACE      SP "+(?!" NSP ")|" SP "+"
#define CASELESS_SUFFIX "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define GPT2            "'s|'t|'re|'ve|'m|'ll|'d| ?" L "+| ?" N "+| ?[^" WS L N "]+|" TAIL_SPACE
#define WORDS           CASELESS_SUFFIX "|[^\\r\\n" L N "]?" L "+|"
#define MARKS           "| ?[^" WS L N "]+[\\r\\n]*|" SP "*[\\r\\n]+|" TAIL_SPACE
#define ASCII_MARK      "[!-/:-@\\[-`{-~]"

static const char *const gpt2[] = {GPT2, NULL};
static const char *const starcoder[] = {N, GPT2, NULL};
static const char *const standard[] = {"[\\p{P}$+<=>^~|]+", GPT2, N "+", "[0-9][0-9][0-9]", NULL};
static const char *const falcon[] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const llama3[] = {WORDS N "{1,3}" MARKS, NULL};
/* Behind a blank that was cut off alone no line ends, or it would not have been. */
#define NO_BLANK "(?<!(?![\\r\\n])" SP ")"
static const char *const jais2[] = {WORDS N "{1,3}| ?[^" WS L N "]+[\\r\\n]*|" NO_BLANK SP
                                            "*[\\r\\n]+|" SP "{512}(?!" NSP ")|" SP "{256}(?!" NSP
                                            ")|" SP "{128}(?!" NSP ")|" SP "{64}(?!" NSP ")|" SP
                                            "{32}(?!" NSP ")|" SP "{16}(?!" NSP ")|" SP "{8}(?!" NSP
                                            ")|" SP "{4}(?!" NSP ")|" SP "{1,2}(?!" NSP ")|" SP,
                                    NULL};
static const char *const qwen2[] = {WORDS N MARKS, NULL};
static const char *const qwen35[] = {CASELESS_SUFFIX "|[^\\r\\n" L N "]?[" L "\\p{M}]+|" N
                                                     "| ?[^" WS L "\\p{M}" N "]+[\\r\\n]*|" SP
                                                     "*[\\r\\n]+|" TAIL_SPACE,
                                     NULL};
static const char *const minicpm5[] = {N "{1,3}", WORDS N "+" MARKS, NULL};
static const char *const bloom[] = {" ?[^" WS
                                    "(|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}"
                                    "\\x{60c})]+",
                                    NULL};
static const char *const viking[] = {" ?[^" WS
                                     "(|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}"
                                     "\\x{60c})]+",
                                     N, NULL};
/* Letters of scripts with case, as the model's own file lists them. */
#define CASED                                                                                      \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{"    \
    "293}"                                                                                         \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-" \
    "\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}" \
    "-"                                                                                            \
    "\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{"     \
    "1cbd}-"                                                                                       \
    "\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{"    \
    "1f18}-"                                                                                       \
    "\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{"     \
    "1f5d}"                                                                                        \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{"    \
    "1fc6}-"                                                                                       \
    "\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{"    \
    "1ff6}-"                                                                                       \
    "\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}" \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{"    \
    "2149}"                                                                                        \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{"     \
    "2cf2}"                                                                                        \
    "\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{"    \
    "a78b}-"                                                                                       \
    "\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{"    \
    "ff41}-"                                                                                       \
    "\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{"      \
    "10cb2}"                                                                                       \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
/* U+4E00-9FA5, U+0800-4E00, U+AC00-D7FF without the white space among them. */
#define CJK_OLD                                                                                    \
    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-"       \
    "\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    SP "?[" CASED "]+",
    SP "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3001}\\x{3002}]+",
    "(?<!" SP ")" SP "+\\z", /* the first, or each blank of a run would look for the end */
    CJK_OLD,
    N "+",
    NULL};
static const char *const deepseek_coder[] = {"[\\r\\n]", SP "?" L "+", SP "?\\p{P}+", CJK_OLD,
                                             N,          NULL};
#define CJK    "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define MARKED ASCII_MARK "[A-Za-z]+|[^\\r\\n" L "\\p{P}\\p{S}]?[" L "\\p{M}]+| ?[\\p{P}\\p{S}]+"
#define V3     MARKED "[\\r\\n]*|" SP "*[\\r\\n]+|" TAIL_SPACE
static const char *const deepseek_v3[] = {N "{1,3}", CJK, V3, NULL};
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"
static const char *const tekken[] = {"[^\\r\\n" L N "]?" UPPER "*" LOWER "+|[^\\r\\n" L N "]?" UPPER
                                     "+" LOWER "*|" N "| ?[^" WS L N "]+[\\r\\n/]*|" SP
                                     "*[\\r\\n]+|" TAIL_SPACE,
                                     NULL};
static const char *const gpt4o[] = {"[^\\r\\n" L N "]?" UPPER "*" LOWER "+" CASELESS_SUFFIX
                                    "?|[^\\r\\n" L N "]?" UPPER "+" LOWER "*" CASELESS_SUFFIX "?|" N
                                    "{1,3}| ?[^" WS L N "]+[\\r\\n/]*|" SP "*[\\r\\n]+|" TAIL_SPACE,
                                    NULL};
/* The originals tell upper from lower case here; the reference does not, so each such word is one.
 */
#define CASED_WORDS "[^\\r\\n" L N "]?[" L "\\p{M}]+" CASELESS_SUFFIX "?|"
/* Digits in groups of three from the right: runs, then the odd head, then groups. */
#define DIGIT_GROUPS N "+", "\\A" N "{1,2}(?=(?:" N "{3})++\\z)", N "{3}"
static const char *const youtu[] = {
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{"
    "2019}"
    "\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{"
    "312f}]+"
    "|[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
    CASED_WORDS N "| ?[^" WS L N "]+[\\r\\n/]*|" SP "*[\\r\\n]+|" TAIL_SPACE, NULL};
static const char *const tiny_aya[] = {
    DIGIT_GROUPS, CASED_WORDS N "{1,3}| ?[^" WS L N "]+[\\r\\n/]*|" SP "*[\\r\\n]+|" TAIL_SPACE,
    NULL};
static const char *const chameleon[] = {"<sentinel:[0-9]+>",
                                        "IMGIMG[A-I]{1,4}Z",
                                        "[\\t\\n]|    |  ",
                                        N,
                                        "[\\p{P}!-/:-@\\[-`{-~]",
                                        GPT2,
                                        NULL};
#define HAN                                                                                        \
    "\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2ebef}\\x{f900}-"   \
    "\\x{faff}\\x{2f800}-\\x{2fa1f}"
static const char *const kimi[] = {
    "[" HAN "]+|[^\\r\\n" L N "]?[^\\P{L}" HAN "]+" CASELESS_SUFFIX "?|" N "{1,3}" MARKS, NULL};
/* Before every three ASCII digits counted from the right: before the first three of each run, then
 * behind three after three (a search goes on one character behind a cut, hence {2}). */
static const char *const superbpe[] = {N "+", "(?<![0-9])[0-9]{0,2}\\K(?=(?:[0-9]{3})++(?![0-9]))",
                                       "(?:\\A[0-9])?[0-9]{2}\\K(?=[0-9]{3})", NULL};
static const char *const bailing[] = {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n" L N
                                      "]?" L "+|" N "| ?[^" WS L N "]+[\\r\\n]*|" SP
                                      "*[\\r\\n]|" TAIL_SPACE,
                                      NULL};
static const char *const seed_coder[] = {
    WORDS N "| ?[^" WS L N "\\r\\n]+|" SP "*[\\r\\n]+|" TAIL_SPACE, NULL};
static const char *const afmoe[] = {
    DIGIT_GROUPS,
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-\\x{"
    "30ff}"
    "\\x{ff65}-\\x{ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-\\x{17ff}"
    "\\x{1000}-\\x{109f}\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{1100}-\\x{"
    "11ff}]+",
    V3, NULL};
static const char *const laguna[] = {"[^\\n]+|\\n+", WORDS N MARKS, NULL};
static const char *const exaone_moe[] = {CASELESS_SUFFIX "|[^\\r\\n" L N "]?" L "(?:[" L
                                                         "\\p{M}]++| (?=" L "))*+|" N "| ?[^" WS L N
                                                         "]+[\\r\\n/]?|" SP "*[\\r\\n]|" TAIL_SPACE,
                                         NULL};
static const char *const lines[] = {"[^\\n]+|\\n+", NULL};

#define LLAMA3_FLAGS (PRE_IGNORE_MERGES | PRE_ADD_BOS | PRE_CLEAN)

static const struct pre_tokenizer table[] = {
    {"default", standard, PRE_CLEAN},
    {"llama-bpe", llama3, LLAMA3_FLAGS},
    {"llama3", llama3, LLAMA3_FLAGS},
    {"llama-v3", llama3, LLAMA3_FLAGS},
    {"falcon3", llama3, LLAMA3_FLAGS},
    {"falcon-h1", llama3, LLAMA3_FLAGS},
    {"pixtral", llama3, LLAMA3_FLAGS},
    {"midm-2.0", llama3, LLAMA3_FLAGS},
    {"lfm2", llama3, LLAMA3_FLAGS},
    {"minicpm5", minicpm5, PRE_IGNORE_MERGES | PRE_CLEAN},
    {"deepseek-llm", deepseek_llm, 0},
    {"deepseek-coder", deepseek_coder, 0},
    {"deepseek-v3", deepseek_v3, 0},
    {"hunyuan-dense", deepseek_v3, 0},
    {"joyai-llm", deepseek_v3, 0},
    {"youtu", youtu, PRE_IGNORE_MERGES},
    {"falcon", falcon, PRE_CLEAN},
    {"gpt-2", gpt2, PRE_CLEAN},
    {"phi-2", gpt2, PRE_CLEAN},
    {"mpt", gpt2, PRE_CLEAN},
    {"olmo", gpt2, PRE_CLEAN},
    {"jais", gpt2, PRE_CLEAN},
    {"gigachat", gpt2, PRE_CLEAN},
    {"a.x-4.0", gpt2, PRE_CLEAN},
    {"mellum", gpt2, PRE_CLEAN},
    {"exaone4", gpt2, PRE_CLEAN},
    {"trillion", gpt2, 0},
    {"granite-docling", gpt2, 0},
    {"starcoder", starcoder, PRE_CLEAN},
    {"refact", starcoder, PRE_CLEAN},
    {"command-r", starcoder, 0},
    {"smollm", starcoder, 0},
    {"codeshell", starcoder, PRE_CLEAN},
    {"exaone", starcoder, PRE_CLEAN},
    {"minerva-7b", starcoder, PRE_CLEAN},
    {"mellum2", starcoder, PRE_CLEAN},
    {"qwen2", qwen2, 0},
    {"deepseek-r1-qwen", qwen2, 0},
    {"kormo", qwen2, 0},
    {"hunyuan", qwen2, 0},
    {"megrez", qwen2, PRE_CLEAN},
    {"stablelm2", qwen2, PRE_CLEAN},
    {"solar-open", qwen2, 0},
    {"grok-2", qwen2, 0},
    {"qwen35", qwen35, 0},
    {"bailingmoe", bailing, 0},
    {"bailingmoe2", bailing, 0},
    {"llada-moe", bailing, 0},
    {"seed-coder", seed_coder, 0},
    {"dbrx", llama3, PRE_CLEAN},
    {"smaug-bpe", llama3, PRE_CLEAN},
    {"glm4", llama3, PRE_CLEAN | PRE_NO_BOS},
    {"chatglm-bpe", llama3, PRE_CLEAN | PRE_NO_BOS},
    {"jais-2", jais2, PRE_CLEAN},
    {"bloom", bloom, PRE_CLEAN},
    {"gpt3-finnish", bloom, PRE_CLEAN},
    {"poro-chat", bloom, 0},
    {"viking", viking, 0},
    {"tekken", tekken, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"gpt-4o", gpt4o, 0},
    {"llama4", gpt4o, 0},
    {"kanana2", gpt4o, 0},
    {"minimax-m2", gpt4o, 0},
    {"chameleon", chameleon, PRE_ADD_BOS},
    {"tiny_aya", tiny_aya, 0},
    {"kimi-k2", kimi, 0},
    {"superbpe", superbpe, 0},
    {"afmoe", afmoe, 0},
    {"laguna", laguna, 0},
    {"exaone-moe", exaone_moe, PRE_CLEAN},
    {"gemma4", lines, PRE_RAW | PRE_ADD_BOS | PRE_CLEAN | PRE_NEWLINES},
    {"sarvam-moe", lines, PRE_RAW},
};

const struct pre_tokenizer *pre_find(struct gguf_text name)
{
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        if (strlen(table[i].name) == name.n_bytes &&
            memcmp(table[i].name, name.data, name.n_bytes) == 0) {
            return &table[i];
        }
    }
    return NULL;
}
