/* From a node's options to struct node_options: engine by name, folders in their order, with the
 * user's own data folder last. A model named by --model must exist, because it was asked for.
 *
 * A node never uses weights in their file unasked: its books would say yes to a model for which the
 * disk may have to be read for every token, where now it says what is missing and what would help.
 * A command that runs one model alone does, because nothing else could be done, and says so. */
#include "node/cli/choice.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { CHOICE_MAX_ROWS = 256, CHOICE_MAX_QUEUE = 64 };

const char *const choice_objectives[] = {"latency", "throughput", NULL};

static size_t folders_list(const struct node_choice *choice, struct node_choice_places *places)
{
    char path[CONFIG_MAX_PATH];
    struct config_world world;
    size_t n = choice->folders.n;

    memcpy(places->folders, choice->folders.items, n * sizeof *places->folders);
    cli_world(&world, path);
    if (config_folder(&world, CONFIG_FOLDER_DATA, path, NULL) != STATUS_OK)
        return n;
    (void)snprintf(places->data_folder, sizeof places->data_folder, "%s/models", path);
    if (access(places->data_folder, F_OK) == 0)
        places->folders[n++] = places->data_folder;
    return n;
}

enum status node_choice_apply(const struct node_choice *choice, struct node_choice_places *places,
                              struct node_options *out, struct fault *fault)
{
    enum status status = engine_choose(choice->engine, &out->engine, fault);

    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < choice->folders.n; i++)
        if (access(choice->folders.items[i], R_OK | X_OK) != 0)
            return fault_set(fault, status_from_errno(errno), "cannot read the model folder %s: %s",
                             choice->folders.items[i], strerror(errno));
    for (size_t i = 0; i < choice->files.n; i++)
        if (access(choice->files.items[i], R_OK) != 0)
            return fault_set(fault, status_from_errno(errno), "cannot read the model %s: %s",
                             choice->files.items[i], strerror(errno));
    status = model_form_parse(choice->kv, choice->quantize, &out->form, fault);
    if (status != STATUS_OK)
        return status;
    out->lock = choice->lock;
    out->form.mapped = choice->mapped;
    out->model_folders = places->folders;
    out->n_model_folders = folders_list(choice, places);
    out->model_files = choice->files.items;
    out->n_model_files = choice->files.n;
    out->memory_bytes = choice->memory_bytes;
    out->n_threads = choice->n_threads;
    out->n_ctx_tokens = choice->n_ctx_tokens;
    out->n_slots = choice->n_slots;
    out->max_rows = CHOICE_MAX_ROWS;
    out->max_queue = CHOICE_MAX_QUEUE;
    out->objective = (enum plan_objective)choice->objective;
    return STATUS_OK;
}

void choice_fit(const struct model *model, struct shard_spec *spec)
{
    struct shard_need need;
    struct engine_box box;
    char weights[32], available[32];

    engine_box(&box);
    shard_need(model, spec, &need);
    if (spec->form.mapped || spec->lock || box.memory_available_bytes == 0 ||
        need.weight_bytes + need.kv_bytes + need.scratch_bytes <= box.memory_available_bytes)
        return;
    spec->form.mapped = true;
    (void)fprintf(stderr,
                  "skein: weights of %s are used in their file, which is slower: there are %s of "
                  "memory\n",
                  bytes_format_size(need.weight_bytes, weights, sizeof weights),
                  bytes_format_size(box.memory_available_bytes, available, sizeof available));
}
