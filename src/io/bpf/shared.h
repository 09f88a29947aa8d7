/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * An address that the machine has itself and shares with the pool (pool4 mode "shared"). The kernel would keep all
 * packets to it, so what may be the pool's goes into the TUN from here, as if a route led there. All of this is only for
 * packets that no rule has translated.
 */
#ifndef SAMPAN_SHARED_H
#define SAMPAN_SHARED_H

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_HEADER 8
#define OFFSET 0x1fff

static __always_inline int is_shared(const struct run *run)
{
	return run->pool.high;
}

/* Whether a port or identifier at `at` of the packet lies in the range. */
static __always_inline int in_range(const struct run *run, __u32 at)
{
	__u16 port;

	if (bpf_skb_load_bytes(run->skb, at, &port, sizeof(port)))
		return 0;
	port = bpf_ntohs(port);
	return port >= run->pool.low && port <= run->pool.high;
}

static __always_inline int is_echo(__u8 type)
{
	return type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY;
}

/* Whether an ICMP error at `at` is about a packet that came from the range. */
static __always_inline int quotes_range(const struct run *run, __u32 at)
{
	struct iphdr ip;
	__u8 type;

	at += ICMP_HEADER;
	if (bpf_skb_load_bytes(run->skb, at, &ip, sizeof(ip)))
		return 0;
	if (ip.version != 4 || ip.ihl < 5 || ip.saddr != run->pool.addr || ip.frag_off & bpf_htons(OFFSET))
		return 0;
	at += ip.ihl * 4;
	if (ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP)
		return in_range(run, at);
	if (ip.protocol != IPPROTO_ICMP || bpf_skb_load_bytes(run->skb, at, &type, sizeof(type)))
		return 0;
	return is_echo(type) && in_range(run, at + 4);
}

/*
 * Whether a packet is the pool's, or may be: whose a fragment is, the daemon finds out when the datagram is whole, and
 * hands back what is the machine's.
 */
static __noinline int is_of_pool(const struct run *run)
{
	struct iphdr ip;
	__u32 at;
	__u8 type;

	if (bpf_skb_load_bytes(run->skb, ETH_HLEN, &ip, sizeof(ip)))
		return 0;
	/* A forged source, which the kernel drops. */
	if (ip.version != 4 || ip.ihl < 5 || ip.saddr == ip.daddr)
		return 0;
	if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP && ip.protocol != IPPROTO_ICMP)
		return 0;
	if (ip.frag_off & bpf_htons(MORE_OR_OFFSET))
		return 1;
	at = ETH_HLEN + ip.ihl * 4;
	if (ip.protocol != IPPROTO_ICMP)
		return in_range(run, at + 2);
	if (bpf_skb_load_bytes(run->skb, at, &type, sizeof(type)))
		return 0;
	if (is_echo(type))
		return in_range(run, at + 4);
	if (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER)
		return 0;
	return quotes_range(run, at);
}

/* Does what the kernel does with a packet that a route leads into the TUN: no padding, one hop less. */
static __noinline int into_tun(const struct run *run)
{
	struct __sk_buff *skb = run->skb;
	__u32 total;
	struct iphdr ip;
	__u16 was, is;

	if (!run->config->tun || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return PASS;
	total = bpf_ntohs(ip.tot_len);
	if (!skb->gso_size && total >= sizeof(ip) && skb->len > ETH_HLEN + total &&
	    bpf_skb_change_tail(skb, ETH_HLEN + total, 0))
		goto failed;
	if (ip.ttl) {
		/* What comes with nothing left is answered by the daemon: it sees a zero. */
		__builtin_memcpy(&was, &ip.ttl, sizeof(was));
		ip.ttl--;
		__builtin_memcpy(&is, &ip.ttl, sizeof(is));
		if (bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), was, is, sizeof(is)) ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, ttl), &ip.ttl, 1, 0))
			goto failed;
	}
	return bpf_redirect(run->config->tun, 0);

failed:
	run->counters->of[DROP_FAILED]++;
	return TC_ACT_SHOT;
}

#endif
