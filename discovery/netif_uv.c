/* Network interfaces. getifaddrs gives the list. Changes are told by the kernel over rtnetlink
 * (RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR); the messages are only counted as a nudge
 * and thrown away, and the list is read again a moment later, so no netlink message is ever parsed.
 * Where netlink cannot be opened or overflows, a timer reads the list every few seconds anyway. */
#include "discovery/netif.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { SETTLE_MS = 50, REREAD_MS = 3000, DRAIN_MAX = 64 };

struct netif_watch {
    uv_timer_t timer;
    uv_poll_t poll;
    int fd; /* -1: no netlink */
    unsigned n_open;
    void (*on_change)(void *owner);
    void (*on_closed)(void *owner);
    void *owner;
};

static struct netif *netif_named(struct netif *all, size_t *n, const char *name)
{
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    }
    if (*n == NETIF_MAX || strlen(name) >= IF_NAMESIZE)
        return NULL;
    struct netif *fresh = &all[(*n)++];
    memset(fresh, 0, sizeof *fresh);
    memcpy(fresh->name, name, strlen(name) + 1);
    fresh->index = if_nametoindex(name);
    return fresh;
}

static void add_address(struct netif *netif, const struct sockaddr *address, sa_family_t family)
{
    if (!address || address->sa_family != family || netif->n_addresses == DISCOVERY_MAX_ADDRESSES)
        return;
    struct mdns_address *to = &netif->addresses[netif->n_addresses++];
    to->family = family;
    if (family == AF_INET)
        memcpy(to->bytes, &((const struct sockaddr_in *)address)->sin_addr, 4);
    else
        memcpy(to->bytes, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
}

enum status netif_read(struct netif out[static NETIF_MAX], size_t *n)
{
    struct ifaddrs *list = NULL;
    *n = 0;
    if (getifaddrs(&list) != 0)
        return status_from_errno(errno);
    static const sa_family_t order[] = {AF_INET, AF_INET6};
    for (size_t f = 0; f < COUNT_OF(order); f++) {
        for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
            struct netif *netif = netif_named(out, n, a->ifa_name);
            if (!netif)
                continue;
            netif->up = (a->ifa_flags & IFF_UP) != 0;
            netif->carrier = (a->ifa_flags & IFF_RUNNING) != 0;
            netif->loopback = (a->ifa_flags & IFF_LOOPBACK) != 0;
            netif->multicast = (a->ifa_flags & IFF_MULTICAST) != 0;
            add_address(netif, a->ifa_addr, order[f]);
        }
    }
    freeifaddrs(list);
    return STATUS_OK;
}

static void on_timer(uv_timer_t *timer)
{
    struct netif_watch *watch = timer->data;
    watch->on_change(watch->owner);
}

static void on_netlink(uv_poll_t *poll, int status, int events)
{
    struct netif_watch *watch = poll->data;
    char scratch[4096];
    (void)events;
    for (unsigned i = 0; i < DRAIN_MAX; i++) {
        if (recv(watch->fd, scratch, sizeof scratch, MSG_DONTWAIT) < 0 && errno != ENOBUFS)
            break;
    }
    uv_timer_start(&watch->timer, on_timer, SETTLE_MS, REREAD_MS);
    if (status < 0) /* libuv stopped on an error (an overflow), which reading has taken */
        uv_poll_start(poll, UV_READABLE, on_netlink);
}

static int open_netlink(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    struct sockaddr_nl to = {.nl_family = AF_NETLINK,
                             .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

enum status netif_watch_start(struct uv_loop_s *loop, void (*on_change)(void *owner), void *owner,
                              struct netif_watch **out)
{
    struct netif_watch *watch = MEM_NEW(struct netif_watch);
    if (!watch)
        return STATUS_NO_MEMORY;
    watch->on_change = on_change;
    watch->owner = owner;
    watch->fd = open_netlink();
    uv_timer_init(loop, &watch->timer);
    watch->timer.data = watch;
    watch->n_open = 1;
    if (watch->fd >= 0 && uv_poll_init(loop, &watch->poll, watch->fd) == 0) {
        watch->poll.data = watch;
        watch->n_open++;
        uv_poll_start(&watch->poll, UV_READABLE, on_netlink);
    } else if (watch->fd >= 0) {
        close(watch->fd);
        watch->fd = -1;
    }
    uv_timer_start(&watch->timer, on_timer, 0, REREAD_MS);
    *out = watch;
    return STATUS_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct netif_watch *watch = handle->data;
    if (--watch->n_open > 0)
        return;
    void (*on_closed)(void *owner) = watch->on_closed;
    void *owner = watch->owner;
    mem_free(watch);
    on_closed(owner);
}

void netif_watch_close(struct netif_watch *watch, void (*on_closed)(void *owner))
{
    watch->on_closed = on_closed;
    if (watch->fd >= 0) {
        uv_close((uv_handle_t *)&watch->poll, on_handle_closed);
        close(watch->fd);
    }
    uv_close((uv_handle_t *)&watch->timer, on_handle_closed);
}
