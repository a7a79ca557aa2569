#include "engine/hf/inner.h"
void hf_write_tokenizer(struct hf_build *build)
{
    (void)build;
}
