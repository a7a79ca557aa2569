/* The fake model, defined in a way that does not care where it runs.
 *
 * A row is a 64-bit state. The embedding is a hash of the token; each layer keeps per sequence a
 * chain over all rows it has seen, and its output is the chain. So a token depends on every earlier
 * token through every layer: a lost, repeated or swapped row, a slot that was not cleared or a
 * layer that ran twice gives another text. sim_truth computes the same with one loop and no
 * cluster. */
#include "tests/sim/sim.h"

#include <string.h>

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_token_of(uint64_t state, uint64_t seed, uint64_t position)
{
    return (uint32_t)(sim_mix(sim_mix(state, seed), position) % SIM_VOCAB);
}

/* Token 0 ends. The others are one to three letters, few different ones, so that stops occur. */
const char *sim_text_of(uint32_t token)
{
    static const char *const texts[] = {"a",   "b", "ab", "c", "ca",      "bc",
                                        "abc", "d", "",   "e", "\xc3\xa4"};

    return token == 0 ? "" : texts[token % (sizeof texts / sizeof *texts)];
}

uint32_t sim_prompt_tokens(const char *body, uint32_t *out, uint32_t max)
{
    uint32_t n = 0;

    for (; body[n] && n < max; n++)
        out[n] = (uint32_t)(unsigned char)body[n] % (SIM_VOCAB - 1) + 1;
    return n;
}

size_t sim_truth(const struct sim_request *request, char *out, size_t size, enum request_end *end,
                 uint32_t *n_tokens, uint32_t n_ctx)
{
    uint64_t chain[SIM_LAYERS] = {0}, state = 0;
    uint32_t tokens[1024], n = sim_prompt_tokens(request->body, tokens, 1024), n_prompt = n, at = 0;
    size_t len = 0;

    *n_tokens = 0;
    *end = REQUEST_END_LENGTH;
    while (n < n_ctx && (!request->spec.max_tokens || *n_tokens < request->spec.max_tokens)) {
        const char *text;
        size_t first = SIZE_MAX;

        for (; at < n; at++) {
            state = sim_mix(tokens[at], 77);
            for (uint32_t layer = 0; layer < request->model->n_layers; layer++)
                state = chain[layer] = sim_mix(sim_mix(chain[layer], state), layer);
        }
        tokens[n] = sim_token_of(state, request->seed, n);
        if (tokens[n] == 0 && !request->spec.ignore_end) {
            *end = REQUEST_END_STOP;
            break;
        }
        text = sim_text_of(tokens[n]);
        n++;
        *n_tokens = n - n_prompt;
        if (len + strlen(text) + 1 > size)
            break;
        memcpy(out + len, text, strlen(text) + 1);
        len += strlen(text);
        for (uint32_t i = 0; i < request->spec.n_stops; i++) {
            const char *hit =
                request->spec.stops[i][0] && len ? strstr(out, request->spec.stops[i]) : NULL;

            if (hit && (size_t)(hit - out) < first)
                first = (size_t)(hit - out);
        }
        if (first != SIZE_MAX) {
            *end = REQUEST_END_STOP;
            return first;
        }
    }
    return len;
}
