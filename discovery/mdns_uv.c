/* The sockets of one interface. Two, one per address family where the interface has addresses of
 * it; the same packets go out on both, and what comes in on either goes to the same struct mdns.
 *
 * Several programs share port 5353 (avahi, other nodes on this box): SO_REUSEADDR and SO_REUSEPORT,
 * and the socket is bound to the multicast group itself, not to the wildcard address: the kernel
 * gives every multicast datagram to all sockets bound so, while a unicast one, meant for the box's
 * own responder, never ends up here. Membership, outgoing interface and the check of where a packet
 * came in are all by interface index, so that no route and no address is needed, `lo` works though
 * it has no IFF_MULTICAST, and one interface's packets are not heard on another's socket
 * (IP_MULTICAST_ALL off, IP_PKTINFO compared).
 *
 * Happy path: open, publish, then drive() at its own deadlines and after each packet. What fails:
 * an option or bind that the kernel refuses makes the open fail with a sentence; a send that fails
 * for good (no route, firewall, address gone) is told once, and the announcement is tried again
 * every few seconds; full queues (EAGAIN, ENOBUFS) are what UDP calls loss, and nothing is told.
 *
 * A flood: at most READ_MAX datagrams per callback, and those beyond a bounded rate are read and
 * dropped unparsed; questions and answers have rates of their own. */
#include "discovery/mdns_uv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum {
    READ_MAX = 32,
    PACKETS_PER_S = 500,
    PACKETS_BURST = 1000,
    QUESTIONS_MAX = 16,     /* instances asked about at once */
    QUESTION_PAUSE_MS = 50, /* between packets of questions */
    SEND_MAX = 16,          /* packets per drive */
    SEND_AGAIN_MS = 2000,
    SETTLE_MS = 3000,   /* IPv6 checks a new address for duplicates before it may send from it */
    ANNOUNCE_MS = 1000, /* between the first announcements; RFC 6762 section 8.3 */
    ANNOUNCE_MORE = 2,
    HOPS = 255
};

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

struct port {
    struct iface *iface;
    sa_family_t family;
    int fd; /* -1: not in use */
    uv_poll_t poll;
    int error; /* of the latest send; 0: it worked */
};

struct iface {
    struct netif netif;
    struct iface_events events;
    struct mdns *mdns;
    struct discovery_card card;
    struct peers_browse browse;
    struct port ports[2];
    unsigned n_open;
    bool closing;
    bool sent; /* anything at all yet */
    bool usable;
    uint64_t opened_ms;
    uint64_t again_ms;        /* when to announce again after failed sends */
    uint64_t announce_ms;     /* when to announce again though nothing failed */
    unsigned n_announce;      /* how often still */
    uint64_t ask_after_ms;    /* no questions about instances before this */
    uint64_t packet_clock_us; /* token bucket of received packets */
};

static bool option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static bool bind_v4(int fd, const struct netif *netif)
{
    struct ip_mreqn group = {.imr_ifindex = (int)netif->index};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(MDNS_PORT)};
    inet_pton(AF_INET, "224.0.0.251", &to.sin_addr);
    group.imr_multiaddr = to.sin_addr;
    /* on lo the kernel would choose no source address by itself; an IPv4 address comes first */
    memcpy(&group.imr_address, netif->addresses[0].bytes, sizeof group.imr_address);
    return option(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0) && option(fd, IPPROTO_IP, IP_PKTINFO, 1) &&
           option(fd, IPPROTO_IP, IP_MULTICAST_TTL, HOPS) &&
           option(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 1) &&
           setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof group) == 0 &&
           bind(fd, (const struct sockaddr *)&to, sizeof to) == 0 &&
           setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0;
}

static bool bind_v6(int fd, unsigned index)
{
    struct ipv6_mreq group = {.ipv6mr_interface = index};
    struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_port = htons(MDNS_PORT), .sin6_scope_id = index};
    inet_pton(AF_INET6, "ff02::fb", &to.sin6_addr);
    group.ipv6mr_multiaddr = to.sin6_addr;
    (void)option(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0); /* Linux 4.20 and later */
    return option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) &&
           option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) &&
           option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, HOPS) &&
           option(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1) &&
           option(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index) &&
           bind(fd, (const struct sockaddr *)&to, sizeof to) == 0 &&
           setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &group, sizeof group) == 0;
}

/* 0, or the errno. */
static int port_open(struct port *port, const struct netif *netif)
{
    int fd = socket(port->family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    bool ok = option(fd, SOL_SOCKET, SO_REUSEADDR, 1) && option(fd, SOL_SOCKET, SO_REUSEPORT, 1) &&
              (port->family == AF_INET ? bind_v4(fd, netif) : bind_v6(fd, netif->index));
    if (!ok) {
        int error = errno;
        close(fd);
        return error;
    }
    port->fd = fd;
    return 0;
}

/* Where the datagram came in, from its control data; 0 if that is not there. */
static unsigned arrived_on(struct msghdr *head)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return (unsigned)info.ipi_ifindex;
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return (unsigned)info.ipi6_ifindex;
        }
    }
    return 0;
}

/* The size of a datagram to look at, 0 for one to drop, -1 when there is none. mDNS comes from port
 * 5353; other ports belong to simple resolvers that want a unicast answer, which we do not give. */
static ssize_t receive(struct port *port, void *out, size_t size)
{
    struct sockaddr_in6 from = {0};
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct iovec to = {.iov_base = out, .iov_len = size};
    struct msghdr head = {.msg_name = &from,
                          .msg_namelen = sizeof from,
                          .msg_iov = &to,
                          .msg_iovlen = 1,
                          .msg_control = &control,
                          .msg_controllen = sizeof control};
    ssize_t n = recvmsg(port->fd, &head, MSG_DONTWAIT);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    /* sin_port and sin6_port lie in the same place */
    if ((head.msg_flags & MSG_TRUNC) || from.sin6_port != htons(MDNS_PORT) ||
        arrived_on(&head) != port->iface->netif.index)
        return 0;
    return n;
}

static bool may_take_packet(struct iface *iface, uint64_t now_ms)
{
    const uint64_t cost_us = 1000000 / PACKETS_PER_S;
    uint64_t now_us = now_ms * 1000;
    if (iface->packet_clock_us < now_us)
        iface->packet_clock_us = now_us;
    if (iface->packet_clock_us + cost_us > now_us + PACKETS_BURST * cost_us)
        return false;
    iface->packet_clock_us += cost_us;
    return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct port *port = poll->data;
    struct iface *iface = port->iface;
    uint8_t data[PACKET_MAX_BYTES];
    struct record records[MDNS_MAX_RECORDS];
    (void)events;
    uint64_t now = uv_now(poll->loop);
    bool any = false;
    for (unsigned i = 0; i < READ_MAX && !iface->closing; i++) {
        ssize_t size = receive(port, data, sizeof data);
        if (size < 0)
            break;
        if (size == 0 || !may_take_packet(iface, now))
            continue;
        any = true;
        size_t n = mdns_in(iface->mdns, data, (size_t)size, now, records);
        if (n > 0)
            iface->events.on_records(iface->events.owner, iface, records, n);
    }
    if (status < 0 && !iface->closing) /* libuv stopped on an error, which reading has taken */
        uv_poll_start(poll, UV_READABLE, on_readable);
    if (any && !iface->closing)
        iface->events.on_work(iface->events.owner, iface);
}

static int port_send(struct port *port, unsigned index, const uint8_t *data, size_t n)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(MDNS_PORT)};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(MDNS_PORT), .sin6_scope_id = index};
    inet_pton(AF_INET, "224.0.0.251", &v4.sin_addr);
    inet_pton(AF_INET6, "ff02::fb", &v6.sin6_addr);
    bool is_v4 = port->family == AF_INET;
    const struct sockaddr *to = is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
    if (sendto(port->fd, data, n, MSG_DONTWAIT, to, is_v4 ? sizeof v4 : sizeof v6) >= 0)
        return 0;
    return errno == EAGAIN || errno == ENOBUFS || errno == EINTR ? 0 : errno;
}

static const char *send_problem(int error)
{
    switch (error) {
    case EPERM:
    case EACCES:
        return "sending is forbidden (a firewall rule?)";
    case ENETUNREACH:
    case EHOSTUNREACH:
        return "the kernel has no way to send multicast there";
    case ENETDOWN:
        return "it is down";
    case ENODEV:
    case ENXIO:
        return "it is gone";
    case EADDRNOTAVAIL:
        return "it has no usable address";
    default:
        return strerror(error);
    }
}

static void tell_usable(struct iface *iface, bool usable, int error)
{
    char why[128] = "announcing and listening for other nodes";
    if (iface->sent && iface->usable == usable)
        return;
    iface->sent = true;
    iface->usable = usable;
    if (!usable)
        snprintf(why, sizeof why, "cannot send mDNS: %s", send_problem(error));
    iface->events.on_usable(iface->events.owner, iface, usable, why);
}

/* On every socket there is; the interface is usable while one of them takes it. */
static void send_packet(struct iface *iface, const uint8_t *data, size_t n, uint64_t now_ms)
{
    bool any = false;
    int error = EADDRNOTAVAIL;
    for (size_t i = 0; i < COUNT_OF(iface->ports) && n > 0; i++) {
        struct port *port = &iface->ports[i];
        if (port->fd < 0)
            continue;
        port->error = port_send(port, iface->netif.index, data, n);
        any = any || port->error == 0;
        error = port->error && error == EADDRNOTAVAIL ? port->error : error;
    }
    if (n == 0)
        return;
    iface->again_ms = any ? UINT64_MAX : now_ms + SEND_AGAIN_MS;
    if (any || error != EADDRNOTAVAIL || now_ms >= iface->opened_ms + SETTLE_MS)
        tell_usable(iface, any, error);
}

static enum status start_port(struct uv_loop_s *loop, struct iface *iface, struct port *port,
                              struct fault *fault)
{
    int error = port_open(port, &iface->netif);
    if (error)
        return fault_set(fault, status_from_errno(error), "cannot open mDNS port %d: %s", MDNS_PORT,
                         error == EADDRINUSE ? "another program holds it and does not share it"
                                             : strerror(error));
    int failed = uv_poll_init(loop, &port->poll, port->fd);
    if (failed) {
        close(port->fd);
        port->fd = -1;
        return fault_set(fault, STATUS_IO, "cannot watch its mDNS socket: %s", uv_strerror(failed));
    }
    port->poll.data = port;
    iface->n_open++;
    uv_poll_start(&port->poll, UV_READABLE, on_readable);
    return STATUS_OK;
}

static bool has_family(const struct netif *netif, sa_family_t family)
{
    for (size_t i = 0; i < netif->n_addresses; i++) {
        if (netif->addresses[i].family == family)
            return true;
    }
    return false;
}

enum status iface_open(struct uv_loop_s *loop, const struct netif *netif,
                       const struct iface_events *events, struct iface **out, struct fault *fault)
{
    struct iface *iface = MEM_NEW(struct iface);
    if (!iface || mdns_new(&iface->mdns) != STATUS_OK) {
        mem_free(iface);
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to use it");
    }
    iface->netif = *netif;
    iface->events = *events;
    iface->again_ms = UINT64_MAX;
    iface->opened_ms = uv_now(loop);
    enum status status = STATUS_OK;
    static const sa_family_t families[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < COUNT_OF(iface->ports); i++) {
        struct port *port = &iface->ports[i];
        *port = (struct port){.iface = iface, .family = families[i], .fd = -1};
        if (!has_family(netif, port->family))
            continue;
        struct fault problem = {0};
        if (start_port(loop, iface, port, &problem) != STATUS_OK && status == STATUS_OK)
            status = fault_set(fault, problem.status, "%s", problem.text);
    }
    if (iface->n_open == 0) {
        mdns_free(&iface->mdns);
        mem_free(iface);
        return status == STATUS_OK
                   ? fault_set(fault, STATUS_UNREACHABLE, "it has no IPv4 or IPv6 address")
                   : status;
    }
    *out = iface;
    return STATUS_OK;
}

const struct netif *iface_netif(const struct iface *iface)
{
    return &iface->netif;
}

/* Puts the records into mdns anew, which sends them all at its next drive, and then again at longer
 * intervals. An answer counts as one of those repetitions there, so in the first seconds, when
 * packets are lost most (a port of a bridge that is not forwarding yet), the repetition is ours. */
static void announce(struct iface *iface, uint64_t now_ms)
{
    iface->announce_ms = iface->n_announce > 0 ? now_ms + ANNOUNCE_MS : UINT64_MAX;
    if (iface->n_announce > 0)
        iface->n_announce--;
    if (mdns_publish(iface->mdns, &iface->card, iface->netif.addresses, iface->netif.n_addresses,
                     now_ms) != STATUS_OK)
        iface->again_ms = now_ms + SEND_AGAIN_MS;
}

void iface_publish(struct iface *iface, const struct discovery_card *card, uint64_t now_ms)
{
    peers_browse_start(&iface->browse, now_ms);
    iface_update(iface, card, now_ms);
}

void iface_update(struct iface *iface, const struct discovery_card *card, uint64_t now_ms)
{
    iface->card = *card;
    iface->n_announce = ANNOUNCE_MORE;
    announce(iface, now_ms);
}

static void send_questions(struct iface *iface, struct peers *peers, uint64_t now_ms, uint8_t *out)
{
    if (peers_browse_due(&iface->browse, now_ms)) {
        struct peers_known known[DISCOVERY_MAX_PEERS];
        size_t n = peers_known(peers, iface->netif.index, now_ms, known, COUNT_OF(known));
        send_packet(iface, out, mdns_browse(iface->mdns, known, n, out), now_ms);
    }
    if (now_ms < iface->ask_after_ms)
        return;
    struct peers_question questions[QUESTIONS_MAX];
    size_t n = peers_questions(peers, iface->netif.index, now_ms, questions, COUNT_OF(questions));
    if (n > 0)
        iface->ask_after_ms = now_ms + QUESTION_PAUSE_MS;
    for (size_t done = 0; done < n;) {
        size_t taken = n - done;
        send_packet(iface, out, mdns_ask(iface->mdns, questions + done, &taken, out), now_ms);
        if (taken == 0)
            break;
        done += taken;
    }
}

void iface_retry(struct iface *iface, uint64_t now_ms)
{
    if (iface->again_ms != UINT64_MAX)
        iface->again_ms = now_ms;
}

uint64_t iface_drive(struct iface *iface, struct peers *peers, uint64_t now_ms)
{
    uint8_t out[MDNS_SEND_MAX_BYTES];
    if (now_ms >= iface->again_ms) {
        iface->again_ms = UINT64_MAX;
        iface_publish(iface, &iface->card, now_ms);
    }
    if (now_ms >= iface->announce_ms)
        announce(iface, now_ms);
    for (unsigned i = 0; i < SEND_MAX && !iface->closing; i++) {
        size_t n = mdns_out(iface->mdns, now_ms, out);
        if (n == 0)
            break;
        send_packet(iface, out, n, now_ms);
    }
    if (!iface->closing)
        send_questions(iface, peers, now_ms, out);
    uint64_t next = mdns_next_ms(iface->mdns, now_ms);
    uint64_t others[] = {iface->browse.next_ms, iface->again_ms, iface->announce_ms,
                         iface->ask_after_ms > now_ms ? iface->ask_after_ms : UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        next = others[i] < next ? others[i] : next;
    return next;
}

static void on_port_closed(uv_handle_t *handle)
{
    struct port *port = handle->data;
    struct iface *iface = port->iface;
    if (--iface->n_open > 0)
        return;
    void (*on_closed)(void *owner) = iface->events.on_closed;
    void *owner = iface->events.owner;
    mdns_free(&iface->mdns);
    mem_free(iface);
    on_closed(owner);
}

void iface_close(struct iface *iface, bool goodbye)
{
    uint8_t out[MDNS_SEND_MAX_BYTES];
    iface->closing = true;
    size_t n = goodbye ? mdns_goodbye(iface->mdns, out) : 0;
    for (size_t i = 0; i < COUNT_OF(iface->ports); i++) {
        struct port *port = &iface->ports[i];
        if (port->fd < 0)
            continue;
        /* twice, as nothing can repeat a lost one later */
        for (unsigned k = 0; k < 2 && n > 0; k++)
            (void)port_send(port, iface->netif.index, out, n);
        uv_close((uv_handle_t *)&port->poll, on_port_closed);
        close(port->fd);
        port->fd = -1;
    }
}
