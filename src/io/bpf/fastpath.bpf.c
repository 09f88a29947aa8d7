// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Sampan's fast path: what the daemon has decided for an established TCP or UDP flow is done again here, in the kernel,
 * for each further packet of it. Two programs for tc (clsact, ingress): one for interfaces towards IPv6 clients, one for
 * those towards IPv4. Everything that is not an ordinary packet of a known flow goes its usual way, unchanged: the route
 * leads to the TUN, and the daemon decides.
 *
 * Headers are written as src/xlat does it; tests/fastpath compares the two byte for byte.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "fastpath.h"
#include "mix.h"

#define AF_INET 2
#define AF_INET6 10
#define PACKET_HOST 0
/* RFC 7915 5.1: longest IPv4 packet sent with DF clear. */
#define MAX_WITHOUT_DF 1260
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define DF 0x4000
#define MORE_OR_OFFSET 0x3fff
/* Bits of the 14th byte of a TCP header. */
#define FIN 0x01
#define SYN 0x02
#define RST 0x04

/* Later filters, if there are any, go on; then the packet goes its usual way. */
#define PASS TC_ACT_UNSPEC

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct line);
} index6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct line);
} index4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

/* The generation of each scope. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SCOPES);
	__type(key, __u32);
	__type(value, __u64);
} scopes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* When each bucket is full again, nanoseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} buckets SEC(".maps");

/* Counters of IPv4 identifications, by addresses and protocol (RFC 6864 5.3.1). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IDENTS);
	__type(key, __u32);
	__type(value, __u32);
} idents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LISTENERS);
	__type(key, __u32);
	__type(value, struct notices);
} notices SEC(".maps");

/* What a packet meets on its way through a program. */
struct run {
	struct __sk_buff *skb;
	const struct config *config;
	struct counters *counters;
	__u64 now;
	/* Of the subscriber, for policing. */
	__u64 bucket;
	/* What the destination lies in, from IPv4. A copy: with a pointer all that follows would be checked once for each pool. */
	struct pool4 pool;
};

#include "shared.h"

/*
 * Hands a packet up to the daemon, unless its subscriber has sent more of that kind than is allowed: else a flood of one
 * would take the slow path away from all. What ends or corrects flows has a part of the bucket for itself.
 */
static __noinline int up(const struct run *run, enum counter reason, int is_control)
{
	const struct config *config = run->config;
	__u32 at = run->bucket >> 20 & (BUCKETS - 1);
	__u64 *full;
	__u64 then, room;

	if (is_shared(run) && !is_of_pool(run))
		return PASS;
	if (config->interval) {
		full = bpf_map_lookup_elem(&buckets, &at);
		if (!full)
			return PASS;
		room = is_control ? config->burst : config->burst - config->reserve;
		then = *(volatile __u64 *)full;
		if (then <= run->now) {
			/* Whoever loses this race sends one packet for nothing. */
			__sync_val_compare_and_swap(full, then, run->now + config->interval);
		} else if (then - run->now + config->interval > room) {
			run->counters->of[DROP_POLICED]++;
			return TC_ACT_SHOT;
		} else {
			__sync_fetch_and_add(full, config->interval);
		}
	}
	run->counters->of[reason]++;
	return is_shared(run) ? into_tun(run) : PASS;
}

/* How many segments a packet will be on a wire. `headers` is the length of what each segment repeats. */
static __always_inline __u32 segments(__u32 gso_size, __u32 len, __u32 headers)
{
	if (!gso_size || len <= headers)
		return 1;
	return (len - headers + gso_size - 1) / gso_size;
}

/* The witness: a small copy of nat64::witness, for segments without SYN. */

#define REACH 65536
#define WIDEST (1U << 30)

static __always_inline int is_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

static __always_inline int is_between(__u32 low, __u32 at, __u32 high)
{
	return at - low <= high - low;
}

static __always_inline __u32 reach(const struct direction *of, const struct direction *other)
{
	__u32 window = of->window;

	if (of->flags & other->flags & SCALED)
		window <<= of->scale & 15;
	return window < REACH ? REACH : window;
}

static __always_inline void note(struct direction *own, __u32 end, const struct tcphdr *tcp)
{
	__u32 ack = bpf_ntohl(tcp->ack_seq);

	if (is_before(own->end, end))
		own->end = end;
	if (tcp->ack && (!(own->flags & ACKED) || !is_before(ack, own->ack))) {
		own->ack = ack;
		own->window = bpf_ntohs(tcp->window);
		if (!(own->flags & ACKED))
			own->flags |= ACKED;
	}
}

/* The segment begins where the other side takes data. */
static __always_inline int fits(const struct direction *own, const struct direction *other, __u32 seq)
{
	__u32 expected = other->flags & ACKED ? other->ack : own->end;
	__u32 room = reach(other, own);

	return is_between(expected - room, seq, expected + room);
}

/* Tells the worker of a flow that it has ended. False when too much of what it was told before is not read yet. */
static __always_inline int tell(const struct record *record)
{
	__u32 worker = record->worker, at;
	struct notices *ring = bpf_map_lookup_elem(&notices, &worker);

	/* Some room is left for those who look at the same time. */
	if (!ring || *(volatile __u32 *)&ring->head - *(volatile __u32 *)&ring->tail >= NOTICES - 1024)
		return 0;
	at = __sync_fetch_and_add(&ring->head, 1) & (NOTICES - 1);
	*(volatile __u32 *)&ring->of[at] = record->tag + 1;
	return 1;
}

/* RFC 5961 3.2: a RST ends the connection when it has the number that its receiver waits for. */
static __always_inline int reset(const struct record *record, struct direction *own, const struct direction *other,
				 __u32 seq)
{
	__u32 acked = other->flags & ACKED ? other->ack : own->end;
	__u32 low = is_before(own->end, acked) ? own->end : acked;
	__u32 high = is_before(own->end, acked) ? acked : own->end;

	if (!(own->flags & SEEN) || (own->flags | other->flags) & FIN_SEEN)
		return 0;
	if (seq != low && seq != high && (high - low >= WIDEST || !is_between(low, seq, high)))
		return 0;
	if (!tell(record))
		return 0;
	own->flags |= RST_SEEN;
	return 1;
}

/* A FIN ends its side; the second one the connection. */
static __always_inline int finish(const struct record *record, struct direction *own, const struct direction *other,
				  __u32 seq)
{
	if (!fits(own, other, seq))
		return 0;
	if (other->flags & FIN_SEEN && !(own->flags & FIN_SEEN) && !tell(record))
		return 0;
	own->flags |= FIN_SEEN;
	return 1;
}

/*
 * What a segment without SYN is to a connection: something that keeps it alive; something that is carried and does not,
 * for it cannot have sent that, or it is the first FIN of a side (RFC 6146 3.5.2.2); or something that the daemon must
 * judge: ends that are not beyond doubt, and all that comes behind a RST.
 */
enum judgement {
	FITTING,
	IDLE,
	OPEN,
};

/* The client's numbers are believed. */
static __always_inline enum judgement see_client(struct record *record, const struct tcphdr *tcp, __u32 len)
{
	struct direction *own = &record->from6, *other = &record->from4;
	__u32 seq = bpf_ntohl(tcp->seq);
	__u32 end = seq + len + tcp->fin;
	__u32 step = end - own->end;
	int is_first = tcp->fin && !(own->flags & FIN_SEEN);

	if ((own->flags | other->flags) & RST_SEEN)
		return OPEN;
	if (tcp->rst)
		return reset(record, own, other, seq) ? FITTING : OPEN;
	if (!(own->flags & SEEN) || (step >= WIDEST && -step >= WIDEST))
		return tcp->fin ? OPEN : IDLE;
	if (tcp->fin && !finish(record, own, other, seq))
		return OPEN;
	note(own, end, tcp);
	if (own->flags & ACKED && other->flags & SEEN && other->end - own->ack > reach(own, other))
		other->end = own->ack;
	return is_first ? IDLE : FITTING;
}

/* The peer's numbers must fit. */
static __always_inline enum judgement see_peer(struct record *record, const struct tcphdr *tcp, __u32 len)
{
	struct direction *own = &record->from4, *other = &record->from6;
	__u32 seq = bpf_ntohl(tcp->seq);
	__u32 ack = bpf_ntohl(tcp->ack_seq);
	__u32 low = own->flags & ACKED ? own->ack : other->end;
	int is_first = tcp->fin && !(own->flags & FIN_SEEN);

	if ((own->flags | other->flags) & RST_SEEN)
		return OPEN;
	if (tcp->rst)
		return reset(record, own, other, seq) ? FITTING : OPEN;
	if (!(own->flags & SEEN) || !tcp->ack || !fits(own, other, seq) || !is_between(low - REACH, ack, other->end))
		return tcp->fin ? OPEN : IDLE;
	if (tcp->fin && !finish(record, own, other, seq))
		return OPEN;
	note(own, seq + len + tcp->fin, tcp);
	return is_first ? IDLE : FITTING;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

/* One's-complement sum of 32-bit words in network order. */
static __always_inline __u64 sum5(const __u32 *words)
{
	return (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
}

static __always_inline __u16 identification(const struct config *config, const struct iphdr *ip, __u32 needed)
{
	__u64 hash = mix(mix(mix(config->seed, ip->saddr), ip->daddr), ip->protocol);
	__u32 at = hash >> 20 & (IDENTS - 1);
	__u32 *next = bpf_map_lookup_elem(&idents, &at);
	__u32 span = config->ident_span;
	__u32 first;

	if (!next || !span)
		return 0;
	first = __sync_fetch_and_add(next, needed) % span;
	/* The segments of a super-packet count on from it, and must not come into the numbers of others. */
	if (first + needed > span)
		first = __sync_fetch_and_add(next, needed) % span;
	if (first + needed > span)
		first = 0;
	return bpf_htons(config->ident_base + first);
}

/*
 * The hash of a key, as src/io/fastpath/index.rs makes it: NH (RFC 4418 5.2) with a secret for each word, then bits that all
 * depend on each other.
 */
static __always_inline __u64 pair(const struct config *config, __u32 at, __u32 a, __u32 b)
{
	return (__u64)(__u32)(a + config->secret[at]) * (__u32)(b + config->secret[at + 1]);
}

static __always_inline __u64 scatter(__u64 hash)
{
	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u64 hash6(const struct config *config, const struct key6 *key)
{
	return scatter(pair(config, 0, key->src[0], key->src[1]) + pair(config, 2, key->src[2], key->src[3]) +
		       pair(config, 4, key->dst[0], key->dst[1]) + pair(config, 6, key->dst[2], key->dst[3]) +
		       pair(config, 8, (__u32)key->dport << 16 | key->sport, key->protocol));
}

static __always_inline __u64 hash4(const struct config *config, const struct key4 *key)
{
	return scatter(pair(config, 0, key->src, key->dst) +
		       pair(config, 2, (__u32)key->dport << 16 | key->sport, key->protocol));
}

static __always_inline int is_of6(const struct record *record, const struct key6 *key)
{
	return !((record->src6[0] ^ key->src[0]) | (record->src6[1] ^ key->src[1]) | (record->src6[2] ^ key->src[2]) |
		 (record->src6[3] ^ key->src[3]) | (record->dst6[0] ^ key->dst[0]) | (record->dst6[1] ^ key->dst[1]) |
		 (record->dst6[2] ^ key->dst[2]) | (record->dst6[3] ^ key->dst[3]) | (record->port6 ^ key->sport) |
		 (record->peer_port ^ key->dport) | (record->protocol ^ key->protocol));
}

static __always_inline int is_of4(const struct record *record, const struct key4 *key)
{
	return !((record->src4 ^ key->dst) | (record->dst4 ^ key->src) | (record->port4 ^ key->dport) |
		 (record->peer_port ^ key->sport) | (record->protocol ^ key->protocol));
}

/*
 * The record of a key, if it has one and its rule is one: its own line, and the next one when flows had to go there. What
 * an entry leads to is always compared: eight bits are few, and a slot may be given out again while we look.
 */
static __always_inline struct record *look_up(void *index, __u32 mask, __u64 hash, const struct key6 *key6,
					      const struct key4 *key4)
{
	__u32 tag = hash >> 56, home = hash & mask, way, i, at, entry, slot;
	struct record *record;
	struct line *line;

#pragma clang loop unroll(disable)
	for (way = 0; way < 2; way++) {
		at = (home + way) & mask;
		line = bpf_map_lookup_elem(index, &at);
		if (!line)
			return 0;
#pragma clang loop unroll(disable)
		for (i = 0; i < ENTRIES; i++) {
			entry = *(volatile __u32 *)&line->entry[i];
			if (entry >> SLOT_BITS != tag)
				continue;
			/* Of an empty entry this is out of the array. */
			slot = (entry & ((1U << SLOT_BITS) - 1)) - 1;
			record = bpf_map_lookup_elem(&records, &slot);
			if (record && *(volatile __u8 *)&record->state == STATE_LIVE &&
			    (key6 ? is_of6(record, key6) : is_of4(record, key4)))
				return record;
		}
		if (!*(volatile __u32 *)&line->spilled)
			return 0;
	}
	return 0;
}

/* Whether the scope of a record is still what it was when the rule was made. */
static __always_inline int is_current(const struct record *record)
{
	__u32 scope = record->scope;
	__u64 *generation = bpf_map_lookup_elem(&scopes, &scope);

	return generation && (__u16)*generation == record->generation;
}

/* Ports and checksum. Partial checksums hold a sum of addresses, and the helpers know of which kind one is. */
static __always_inline int rewrite_l4(struct run *run, __u32 l4, __u8 protocol, __u32 ports, __u16 addresses,
				      __u16 port_delta)
{
	struct __sk_buff *skb = run->skb;
	int is_udp = protocol == IPPROTO_UDP;
	__u32 field = l4 + (is_udp ? 6 : 16);
	__u64 udp = is_udp ? BPF_F_MARK_MANGLED_0 : 0;

	if (bpf_l4_csum_replace(skb, field, 0, addresses, BPF_F_PSEUDO_HDR | udp))
		return -1;
	if (bpf_l4_csum_replace(skb, field, 0, port_delta, udp))
		return -1;
	return bpf_skb_store_bytes(skb, l4, &ports, sizeof(ports), 0);
}

/* Where the translated packet goes, as if it had come out of the TUN: `found` says how well that is known. */
static __always_inline int find_route(struct run *run, struct bpf_fib_lookup *fib, int *found)
{
	fib->ifindex = run->config->tun ? run->config->tun : run->skb->ifindex;
	*found = bpf_fib_lookup(run->skb, fib, sizeof(*fib), 0);
	if (*found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return UP_TOO_BIG;
	if (*found != BPF_FIB_LKUP_RET_SUCCESS && *found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return UP_ROUTE;
	return fib->ifindex == run->config->tun ? UP_ROUTE : 0;
}

/* The packet is what it shall be: out with it. */
static __always_inline int send(struct run *run, const struct bpf_fib_lookup *fib, int found, __u16 proto)
{
	struct bpf_redir_neigh hop = {};
	struct ethhdr eth;

	if (found == BPF_FIB_LKUP_RET_NO_NEIGH) {
		/* The kernel asks for the neighbour. */
		hop.nh_family = fib->family;
		if (fib->family == AF_INET) {
			hop.ipv4_nh = fib->ipv4_dst;
		} else {
			hop.ipv6_nh[0] = fib->ipv6_dst[0];
			hop.ipv6_nh[1] = fib->ipv6_dst[1];
			hop.ipv6_nh[2] = fib->ipv6_dst[2];
			hop.ipv6_nh[3] = fib->ipv6_dst[3];
		}
		return bpf_redirect_neigh(fib->ifindex, &hop, sizeof(hop), 0);
	}
	__builtin_memcpy(eth.h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, fib->smac, ETH_ALEN);
	eth.h_proto = proto;
	if (bpf_skb_store_bytes(run->skb, 0, &eth, sizeof(eth), 0)) {
		run->counters->of[DROP_FAILED]++;
		return TC_ACT_SHOT;
	}
	return bpf_redirect(fib->ifindex, 0);
}

/* Whether this interface's packets are any of ours at all. */
static __always_inline int begin(struct run *run, struct __sk_buff *skb, __u16 proto)
{
	__u32 zero = 0;

	if (skb->protocol != proto || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return 0;
	run->skb = skb;
	run->config = bpf_map_lookup_elem(&config, &zero);
	run->counters = bpf_map_lookup_elem(&counters, &zero);
	if (!run->config || !run->counters)
		return 0;
	run->now = bpf_ktime_get_coarse_ns();
	return 1;
}

static __always_inline int is_orphan(struct run *run)
{
	__u64 heartbeat = *(volatile __u64 *)&run->config->heartbeat;

	return !heartbeat || (run->now > heartbeat && run->now - heartbeat > run->config->orphan_limit);
}

/*
 * What both families ask of a transport header that may be translated here: `len` bytes of IP payload, of which at
 * least the fixed header is in reach of `end`. Says with `l4_header` how long it is.
 */
static __always_inline int check_l4(__u8 protocol, void *l4, void *end, __u32 len, __u32 *l4_header)
{
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;
	__u8 bits;

	if (protocol == IPPROTO_TCP) {
		if (len < sizeof(*tcp) || (void *)(tcp + 1) > end)
			return UP_ODD;
		bits = ((__u8 *)l4)[13];
		if (bits & SYN)
			return UP_CONTROL;
		*l4_header = tcp->doff * 4;
		if (*l4_header < sizeof(*tcp) || *l4_header > len)
			return UP_ODD;
		return 0;
	}
	if (len < sizeof(*udp) || (void *)(udp + 1) > end)
		return UP_ODD;
	if (bpf_ntohs(udp->len) != len)
		return UP_ODD;
	if (!udp->check)
		return UP_NO_CHECKSUM;
	*l4_header = sizeof(*udp);
	return 0;
}

/* Makes up to `len` bytes of headers readable. */
static __always_inline void *reach_in(struct __sk_buff *skb, __u32 len)
{
	if (skb->data + len > skb->data_end)
		bpf_skb_pull_data(skb, len < skb->len ? len : skb->len);
	return (void *)(long)skb->data;
}

SEC("classifier")
int sampan_v6(struct __sk_buff *skb)
{
	struct run run = {};
	struct bpf_fib_lookup fib = {};
	struct record *record;
	struct key6 key;
	struct iphdr ip;
	struct ipv6hdr *old;
	void *data, *end;
	__u32 i, len, total, segment, l4_header, gso, count, tick, last, ports;
	__u8 protocol, traffic_class;
	int problem, found, is_control;
	enum judgement verdict;

	if (!begin(&run, skb, bpf_htons(ETH_P_IPV6)))
		return PASS;
	data = reach_in(skb, ETH_HLEN + IPV6_HEADER + sizeof(struct tcphdr));
	end = (void *)(long)skb->data_end;
	old = data + ETH_HLEN;
	if ((void *)(old + 1) > end)
		return PASS;
	__builtin_memcpy(key.src, &old->saddr, 32);
	for (i = 0; i < POOLS; i++) {
		const struct pool6 *pool = &run.config->pool6[i];

		if (i >= run.config->pools6)
			return PASS;
		if (!(((key.dst[0] & pool->mask[0]) ^ pool->addr[0]) | ((key.dst[1] & pool->mask[1]) ^ pool->addr[1]) |
		      ((key.dst[2] & pool->mask[2]) ^ pool->addr[2]) | ((key.dst[3] & pool->mask[3]) ^ pool->addr[3])))
			break;
	}
	if (i == POOLS)
		return PASS;
	if (is_orphan(&run)) {
		run.counters->of[UP_ORPHAN]++;
		return PASS;
	}
	run.bucket = run.config->seed;
	for (i = 0; i < 4; i++)
		run.bucket = mix(run.bucket, key.src[i] & run.config->subscriber_mask[i]);

	protocol = old->nexthdr;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return up(&run, protocol == IPPROTO_FRAGMENT ? UP_FRAGMENT :
				protocol == IPPROTO_ICMPV6 ? UP_PROTOCOL : UP_OPTIONS,
			  protocol == IPPROTO_ICMPV6);
	len = bpf_ntohs(old->payload_len);
	if (old->version != 6 || !len || len > 65535 - IPV4_HEADER || ETH_HLEN + IPV6_HEADER + len > skb->len)
		return up(&run, UP_ODD, 0);
	problem = check_l4(protocol, old + 1, end, len, &l4_header);
	if (problem)
		return up(&run, problem, 0);
	is_control = protocol == IPPROTO_TCP && ((__u8 *)(old + 1))[13] & (FIN | RST);
	if (old->hop_limit <= 1)
		return up(&run, UP_HOP_LIMIT, 0);

	key.sport = ((__u16 *)(old + 1))[0];
	key.dport = ((__u16 *)(old + 1))[1];
	key.protocol = protocol;
	record = look_up(&index6, run.config->mask6, hash6(run.config, &key), &key, 0);
	if (!record)
		return up(&run, UP_MISS, is_control);
	/* Not needed yet, but on its way from now on: the other half of the record. */
	last = *(volatile __u32 *)&record->last6;
	if (!is_current(record))
		return up(&run, UP_STALE, is_control);

	gso = skb->gso_size;
	if (gso ? skb->len != ETH_HLEN + IPV6_HEADER + len : 0)
		return up(&run, UP_ODD, 0);
	total = IPV4_HEADER + len;
	segment = total;
	if (gso && IPV4_HEADER + l4_header + gso < total)
		segment = IPV4_HEADER + l4_header + gso;
	if (segment > run.config->mtu4)
		return up(&run, UP_TOO_BIG, 0);
	traffic_class = old->priority << 4 | old->flow_lbl[0] >> 4;
	if (run.config->flags & FIXED_TOS)
		traffic_class = run.config->tos;
	count = segments(gso, len, l4_header);

	ip.version = 4;
	ip.ihl = 5;
	ip.tos = traffic_class;
	ip.tot_len = bpf_htons(total);
	ip.frag_off = segment > MAX_WITHOUT_DF ? bpf_htons(DF) : 0;
	ip.ttl = old->hop_limit - 1;
	ip.protocol = protocol;
	ip.saddr = record->src4;
	ip.daddr = record->dst4;
	ports = (__u32)record->peer_port << 16 | record->port4;

	fib.family = AF_INET;
	fib.l4_protocol = protocol;
	fib.sport = record->port4;
	fib.dport = record->peer_port;
	fib.tot_len = segment;
	fib.tos = traffic_class;
	fib.ipv4_src = ip.saddr;
	fib.ipv4_dst = ip.daddr;
	problem = find_route(&run, &fib, &found);
	if (problem)
		return up(&run, problem, 0);

	tick = run.now >> TICK_SHIFT;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(old + 1);

		if ((void *)(tcp + 1) > end)
			return PASS;
		verdict = see_client(record, tcp, len - l4_header);
		if (verdict == OPEN)
			return up(&run, UP_CONTROL, is_control);
		if (verdict == IDLE)
			tick = 0;
	}
	/* RFC 6864 4.1: a datagram that nobody cuts needs no identification. */
	ip.id = ip.frag_off ? 0 : identification(run.config, &ip, count);
	ip.check = 0;
	ip.check = ~fold(sum5((__u32 *)&ip));
	if (!gso && skb->len > ETH_HLEN + IPV6_HEADER + len) {
		/* Padding of the link. */
		if (bpf_skb_change_tail(skb, ETH_HLEN + IPV6_HEADER + len, 0))
			goto failed;
	}
	if (rewrite_l4(&run, ETH_HLEN + IPV6_HEADER, protocol, ports, record->delta_addresses, record->delta_ports))
		goto failed;
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0))
		goto failed;
	/* The flag keeps the sum right that some network cards make of the whole packet. */
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		goto failed;
	if (tick && last != tick)
		record->last6 = tick;
	__sync_fetch_and_add(&record->packets6, count);
	__sync_fetch_and_add(&record->bytes6, IPV6_HEADER + len);
	run.counters->of[SENT_V6_TO_V4]++;
	run.counters->of[SEGMENTS_V6_TO_V4] += count;
	run.counters->of[BYTES_V6_TO_V4] += IPV6_HEADER + len;
	return send(&run, &fib, found, bpf_htons(ETH_P_IP));

failed:
	run.counters->of[DROP_FAILED]++;
	return TC_ACT_SHOT;
}

SEC("classifier")
int sampan_v4(struct __sk_buff *skb)
{
	struct run run = {};
	struct bpf_fib_lookup fib = {};
	struct record *record;
	struct key4 key;
	struct ipv6hdr ip;
	struct iphdr *old;
	void *data, *end;
	__u32 i, len, total, segment, limit, l4_header, gso, count, tick, last, ports, port;
	__u8 protocol, traffic_class;
	int problem, found, is_control;
	enum judgement verdict;

	if (!begin(&run, skb, bpf_htons(ETH_P_IP)))
		return PASS;
	data = reach_in(skb, ETH_HLEN + IPV4_HEADER + sizeof(struct tcphdr));
	end = (void *)(long)skb->data_end;
	old = data + ETH_HLEN;
	if ((void *)(old + 1) > end)
		return PASS;
	key.src = old->saddr;
	key.dst = old->daddr;
	for (i = 0; i < POOLS; i++) {
		if (i >= run.config->pools4)
			return PASS;
		run.pool = run.config->pool4[i];
		if ((key.dst & run.pool.mask) == run.pool.addr)
			break;
	}
	if (i == POOLS)
		return PASS;
	if (is_orphan(&run)) {
		run.counters->of[UP_ORPHAN]++;
		return PASS;
	}
	run.bucket = mix(run.config->seed, key.dst);
	if (old->version != 4 || old->ihl < 5)
		return up(&run, UP_ODD, 0);
	if (old->ihl != 5)
		return up(&run, UP_OPTIONS, 0);
	if (old->frag_off & bpf_htons(MORE_OR_OFFSET))
		return up(&run, UP_FRAGMENT, 0);
	protocol = old->protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return up(&run, UP_PROTOCOL, protocol == IPPROTO_ICMP);
	if ((void *)(old + 1) + 4 > end)
		return up(&run, UP_ODD, 0);
	key.sport = ((__u16 *)(old + 1))[0];
	key.dport = ((__u16 *)(old + 1))[1];
	key.protocol = protocol;
	/* A block of ports is a subscriber's. */
	port = bpf_ntohs(key.dport);
	run.bucket = mix(run.bucket, 1 + (port >> (run.config->port_shift & 15)));

	total = bpf_ntohs(old->tot_len);
	if (total < IPV4_HEADER || ETH_HLEN + total > skb->len || fold(sum5((__u32 *)old)) != 0xffff)
		return up(&run, UP_ODD, 0);
	len = total - IPV4_HEADER;
	problem = check_l4(protocol, old + 1, end, len, &l4_header);
	if (problem)
		return up(&run, problem, 0);
	is_control = protocol == IPPROTO_TCP && ((__u8 *)(old + 1))[13] & (FIN | RST);
	if (old->ttl <= 1)
		return up(&run, UP_HOP_LIMIT, 0);

	record = look_up(&index4, run.config->mask4, hash4(run.config, &key), 0, &key);
	if (!record)
		return up(&run, UP_MISS, is_control);
	last = *(volatile __u32 *)&record->last4;
	if (!is_current(record))
		return up(&run, UP_STALE, is_control);

	gso = skb->gso_size;
	if (gso ? skb->len != ETH_HLEN + total : 0)
		return up(&run, UP_ODD, 0);
	segment = IPV6_HEADER + len;
	if (gso && IPV6_HEADER + l4_header + gso < segment)
		segment = IPV6_HEADER + l4_header + gso;
	limit = run.config->mtu6;
	/* RFC 7915 4.1: what may be cut is cut to the smallest MTU, by the daemon. */
	if (!(old->frag_off & bpf_htons(DF)) && !(gso && protocol == IPPROTO_TCP) && run.config->lowest_mtu6 < limit)
		limit = run.config->lowest_mtu6;
	if (segment > limit)
		return up(&run, UP_TOO_BIG, 0);
	traffic_class = old->tos;
	if (run.config->flags & FIXED_TRAFFIC_CLASS)
		traffic_class = run.config->traffic_class;
	count = segments(gso, len, l4_header);

	ip.version = 6;
	ip.priority = traffic_class >> 4;
	ip.flow_lbl[0] = traffic_class << 4;
	ip.flow_lbl[1] = 0;
	ip.flow_lbl[2] = 0;
	ip.payload_len = bpf_htons(len);
	ip.nexthdr = protocol;
	ip.hop_limit = old->ttl - 1;
	__builtin_memcpy(&ip.saddr, record->dst6, 16);
	__builtin_memcpy(&ip.daddr, record->src6, 16);
	ports = (__u32)record->port6 << 16 | record->peer_port;

	fib.family = AF_INET6;
	fib.l4_protocol = protocol;
	fib.sport = record->peer_port;
	fib.dport = record->port6;
	fib.tot_len = segment;
	fib.flowinfo = bpf_htonl((__u32)traffic_class << 20);
	__builtin_memcpy(fib.ipv6_src, record->dst6, 16);
	__builtin_memcpy(fib.ipv6_dst, record->src6, 16);
	problem = find_route(&run, &fib, &found);
	if (problem)
		return up(&run, problem, 0);

	tick = run.now >> TICK_SHIFT;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(old + 1);

		if ((void *)(tcp + 1) > end)
			return PASS;
		/* What the peer cannot have sent prolongs nothing. */
		verdict = see_peer(record, tcp, len - l4_header);
		if (verdict == OPEN)
			return up(&run, UP_CONTROL, is_control);
		if (verdict == IDLE)
			tick = 0;
	}
	if (!gso && skb->len > ETH_HLEN + total) {
		if (bpf_skb_change_tail(skb, ETH_HLEN + total, 0))
			goto failed;
	}
	/* The reverse of a sum in one's complement is its complement. */
	if (rewrite_l4(&run, ETH_HLEN + IPV4_HEADER, protocol, ports, ~record->delta_addresses, ~record->delta_ports))
		goto failed;
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0))
		goto failed;
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		goto failed;
	if (tick && last != tick)
		record->last4 = tick;
	__sync_fetch_and_add(&record->packets4, count);
	__sync_fetch_and_add(&record->bytes4, total);
	run.counters->of[SENT_V4_TO_V6]++;
	run.counters->of[SEGMENTS_V4_TO_V6] += count;
	run.counters->of[BYTES_V4_TO_V6] += total;
	return send(&run, &fib, found, bpf_htons(ETH_P_IPV6));

failed:
	run.counters->of[DROP_FAILED]++;
	return TC_ACT_SHOT;
}

/* Some helpers are only for programs with such a licence; the source may be used under either of the two. */
char _license[] SEC("license") = "Dual MIT/GPL";
