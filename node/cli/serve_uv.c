/* One loop, one node, one API.
 *
 *   node_start → api_start → loop … on_ready → ticks … stop or signal → api_close → node_close →
 * end
 *
 * The API listens before the node is ready, so that a port in use is an error at once and not after
 * the machine was measured; until then it answers 503. Where starting fails, what was started is
 * closed the same way, and the loop runs until nothing is left on it. */
#include "node/cli/serve_uv.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { SERVE_TICK_MS = 250 };

struct serve {
    uv_loop_t loop;
    uv_async_t stop;
    uv_signal_t signals[2];
    uv_timer_t tick;
    bool with_signals, closing;
    struct serve_events events;
    struct node *node;
    struct api *api;
};

static void serve_close_handles(struct serve *serve)
{
    uv_close((uv_handle_t *)&serve->stop, NULL);
    uv_close((uv_handle_t *)&serve->tick, NULL);
    for (size_t i = 0; i < COUNT_OF(serve->signals) && serve->with_signals; i++)
        uv_close((uv_handle_t *)&serve->signals[i], NULL);
}

static void on_node_closed(void *owner)
{
    struct serve *serve = owner;

    serve->node = NULL;
    serve_close_handles(serve);
}

static void on_api_closed(void *owner)
{
    struct serve *serve = owner;

    serve->api = NULL;
    node_close(serve->node);
}

static void serve_close(struct serve *serve)
{
    if (serve->closing)
        return;
    serve->closing = true;
    (void)uv_timer_stop(&serve->tick);
    if (serve->api)
        api_close(serve->api, on_api_closed, serve);
    else if (serve->node)
        node_close(serve->node);
    else
        serve_close_handles(serve);
}

static void on_stop(uv_async_t *async)
{
    serve_close(async->data);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct serve *serve = signal->data;

    if (serve->closing)
        _exit(128 + number); /* asked twice: now */
    serve_close(serve);
}

static void on_tick(uv_timer_t *timer)
{
    struct serve *serve = timer->data;

    serve->events.on_tick(serve->events.owner, serve->node);
}

static void on_ready(void *owner)
{
    struct serve *serve = owner;

    if (serve->closing)
        return;
    api_ready(serve->api);
    serve->events.on_ready(serve->events.owner, serve->node, api_port(serve->api));
    if (serve->events.on_tick)
        (void)uv_timer_start(&serve->tick, on_tick, SERVE_TICK_MS, SERVE_TICK_MS);
}

enum status serve_new(struct serve **out, struct fault *fault)
{
    struct serve *serve = MEM_NEW(struct serve);

    if (!serve)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to start a node");
    if (uv_loop_init(&serve->loop) != 0) {
        mem_free(serve);
        return fault_set(fault, STATUS_IO, "no event loop: too many open files?");
    }
    if (uv_async_init(&serve->loop, &serve->stop, on_stop) != 0) {
        (void)uv_loop_close(&serve->loop);
        mem_free(serve);
        return fault_set(fault, STATUS_IO, "no event loop: too many open files?");
    }
    serve->stop.data = serve;
    *out = serve;
    return STATUS_OK;
}

static void serve_start_signals(struct serve *serve)
{
    static const int numbers[] = {SIGINT, SIGTERM};

    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        (void)uv_signal_init(&serve->loop, &serve->signals[i]);
        serve->signals[i].data = serve;
        (void)uv_signal_start(&serve->signals[i], on_signal, numbers[i]);
    }
}

enum status serve_run(struct serve *serve, const struct serve_options *options,
                      const struct serve_events *events, struct fault *fault)
{
    struct node_events node_events = {on_ready, on_node_closed, serve};
    enum status status;

    serve->events = *events;
    serve->with_signals = options->signals;
    (void)uv_timer_init(&serve->loop, &serve->tick);
    serve->tick.data = serve;
    if (serve->with_signals)
        serve_start_signals(serve);
    status = node_start(&serve->loop, &options->node, &node_events, &serve->node, fault);
    if (status == STATUS_OK)
        status = api_start(&serve->loop, serve->node, &options->api, &serve->api, fault);
    if (status != STATUS_OK)
        serve_close(serve);
    (void)uv_run(&serve->loop, UV_RUN_DEFAULT);
    return status;
}

void serve_stop(struct serve *serve)
{
    (void)uv_async_send(&serve->stop);
}

void serve_free(struct serve **serve)
{
    if (!*serve)
        return;
    if (!(*serve)->closing) /* never ran */
        uv_close((uv_handle_t *)&(*serve)->stop, NULL);
    (void)uv_run(&(*serve)->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&(*serve)->loop);
    mem_free(*serve);
    *serve = NULL;
}
