/* Any bytes as a TXT record. links: skein_discovery
 *
 * What was read must survive being written and read again, and its texts must be texts.
 *
 * Memory: at most 32 MiB. */
#include <stdlib.h>
#include <string.h>

#include "discovery/txt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct discovery_card card = {0};
    struct discovery_card again = {0};
    if (txt_decode(data, size, &card) != STATUS_OK)
        return 0;
    uint8_t text[TXT_WRITE_MAX_BYTES];
    size_t n = txt_encode(&card, text);
    if (n > sizeof text || txt_decode(text, n, &again) != STATUS_OK ||
        memcmp(&card, &again, sizeof card) != 0)
        abort();
    return 0;
}
