/* Files in which every expert is a tensor of its own: made from recorded models of today's form,
 * they must give the same bits; and what can be wrong with them is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/file/gguf_write.h"
#include "engine/file/map.h"
#include "tests/model/stages.h"

enum { N_TOKENS = 24 };

/* Writes the tensor's matrices apart, under the old names, but expert `without`. */
static void take_apart(struct gguf_writer *w, struct buffer *data, const struct gguf_tensor *tensor,
                       uint64_t without)
{
    size_t size = (size_t)(tensor->n_bytes / tensor->dims[2]);
    size_t stem = tensor->name.n_bytes - strlen("_exps.weight");

    for (uint64_t e = 0; e < tensor->dims[2]; e++) {
        char name[80];

        if (e == without)
            continue;
        snprintf(name, sizeof name, "%.*s.%u.weight", (int)stem, tensor->name.data, (unsigned)e);
        gguf_write_tensor(w, name, strlen(name), 2, tensor->dims, (enum tensor_type)tensor->type,
                          size);
        assert_int_equal(buffer_put(data, (const uint8_t *)tensor->data + e * size, size),
                         STATUS_OK);
        while (data->len % GGUF_WRITE_ALIGNMENT)
            assert_int_equal(buffer_put_u8(data, 0), STATUS_OK);
    }
}

static void write_old(const struct gguf *gguf, uint64_t without, struct buffer *out)
{
    struct gguf_writer w = {0};
    struct buffer data = {0};

    for (size_t i = 0; i < gguf_value_count(gguf); i++)
        gguf_write_copy(&w, gguf_value_at(gguf, i));
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);

        if (memmem(tensor->name.data, tensor->name.n_bytes, "_exps.weight", 12)) {
            take_apart(&w, &data, tensor, without);
            continue;
        }
        gguf_write_tensor(&w, tensor->name.data, tensor->name.n_bytes, tensor->n_dims, tensor->dims,
                          (enum tensor_type)tensor->type, tensor->n_bytes);
        assert_int_equal(buffer_put(&data, tensor->data, (size_t)tensor->n_bytes), STATUS_OK);
        while (data.len % GGUF_WRITE_ALIGNMENT)
            assert_int_equal(buffer_put_u8(&data, 0), STATUS_OK);
    }
    assert_int_equal(gguf_write_finish(&w, out), STATUS_OK);
    assert_int_equal(buffer_put(out, data.data, data.len), STATUS_OK);
    buffer_free(&data);
    gguf_write_free(&w);
}

static float *logits_of(const struct model *model, uint32_t n_stages)
{
    struct stages_config config = {.n_stages = n_stages, .n_threads = 1, .n_ctx_tokens = 64};

    return stages_logits(model, &config, N_TOKENS, 8);
}

static void check_model(const char *name)
{
    const char *root = getenv("SKEIN_CONFORMANCE");
    struct file_map map = {0};
    struct buffer old = {0};
    struct gguf *gguf;
    struct model *today, *then;
    struct fault fault = {0};
    char path[512];
    float *a, *b;

    snprintf(path, sizeof path, "%s/%s/model.gguf", root ? root : "", name);
    if (!root || file_map_open(path, &map, NULL))
        skip();
    assert_int_equal(gguf_parse(map.data, map.size_bytes, &gguf, NULL), STATUS_OK);
    write_old(gguf, UINT64_MAX, &old);
    assert_int_equal(model_open_memory(map.data, map.size_bytes, "today", &today, NULL), STATUS_OK);
    if (model_open_memory(old.data, old.len, "then", &then, &fault))
        fail_msg("%s", fault.text);
    assert_int_equal(model_info(then)->n_parameters, model_info(today)->n_parameters);
    assert_string_equal(model_info(then)->types, model_info(today)->types);
    a = logits_of(today, 1);
    b = logits_of(then, 2);
    assert_memory_equal(a, b, (size_t)N_TOKENS * model_info(today)->n_vocab * sizeof(float));
    free(a);
    free(b);
    model_free(&then);
    for (unsigned long n = 1; n < 12; n++) { /* the first allocations are those of the gathering */
        mem_fail_after(n);
        assert_int_equal(model_open_memory(old.data, old.len, "then", &then, NULL),
                         STATUS_NO_MEMORY);
        mem_fail_after(0);
        assert_null(then);
    }
    buffer_free(&old);

    write_old(gguf, 0, &old); /* all but expert 0, then all but the second */
    assert_int_equal(model_open_memory(old.data, old.len, "gap", &then, &fault), STATUS_FORMAT);
    assert_non_null(strstr(fault.text, "experts are missing"));
    buffer_free(&old);
    write_old(gguf, 1, &old);
    assert_int_equal(model_open_memory(old.data, old.len, "gap", &then, &fault), STATUS_FORMAT);
    buffer_free(&old);
    model_free(&today);
    gguf_free(&gguf);
    file_map_close(&map);
}

static void test_f16(void **state)
{
    (void)state;
    check_model("arch/mixtral");
}

static void test_q4_0(void **state)
{
    (void)state;
    check_model("quant/mixtral-Q4_0");
}

static void test_iq3_s(void **state)
{
    (void)state;
    check_model("quant/mixtral-IQ3_S");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_q4_0),
        cmocka_unit_test(test_iq3_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
