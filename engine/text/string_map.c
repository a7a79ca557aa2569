/* A map from strings to numbers, made once per vocabulary: linear probing at half load, strings not
 * copied. The hash reads eight bytes at a time: loading a vocabulary hashes half a million strings.
 */
#include "engine/text/vocab.h"

#include <string.h>

static uint64_t hash_of(const char *data, size_t n_bytes)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ n_bytes;
    while (n_bytes > 0) {
        uint64_t word = 0;
        size_t n = n_bytes < 8 ? n_bytes : 8;
        memcpy(&word, data, n);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        data += n;
        n_bytes -= n;
    }
    return hash;
}

enum status string_map_new(struct string_map *map, size_t n)
{
    size_t size = 64;
    while (size < 2 * n) {
        size *= 2;
    }
    map->slots = MEM_NEW_N(uint32_t, size);
    map->size = size;
    return map->slots == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

void string_map_free(struct string_map *map)
{
    mem_free(map->slots);
    *map = (struct string_map){0};
}

static uint32_t *slot_find(const struct string_map *map, const struct token *tokens,
                           const char *data, size_t n_bytes)
{
    size_t at = (size_t)hash_of(data, n_bytes) & (map->size - 1);
    while (map->slots[at] != 0) {
        const struct token *token = &tokens[map->slots[at] - 1];
        if (token->n_bytes == n_bytes && memcmp(token->data, data, n_bytes) == 0) {
            break;
        }
        at = (at + 1) & (map->size - 1);
    }
    return &map->slots[at];
}

uint32_t string_map_find(const struct string_map *map, const struct token *tokens, const char *data,
                         size_t n_bytes)
{
    return *slot_find(map, tokens, data, n_bytes) - 1; /* 0 - 1 is TOKEN_NONE */
}

uint32_t string_map_add(struct string_map *map, const struct token *tokens, uint32_t number)
{
    uint32_t *slot = slot_find(map, tokens, tokens[number].data, tokens[number].n_bytes);
    if (*slot == 0) {
        *slot = number + 1;
    }
    return *slot - 1;
}
