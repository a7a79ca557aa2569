/* From a node's options to struct node_options: engine by name, folders in their order, with the
 * user's own data folder last. A model named by --model must exist, because it was asked for. */
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
