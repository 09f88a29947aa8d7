// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Puts packets on the queue of the worker that owns them (TUNSETSTEERINGEBPF). A worker that had to pass a packet on
 * notes whose it was, by the client's prefix or by the block of the port; this reads the note. What nobody has noted
 * comes to some worker, and crosses from there once. A wrong note costs a crossing, nothing else.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"
#include "mix.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steering);
} steering SEC(".maps");

SEC("socket")
int sampan_steer(struct __sk_buff *skb)
{
	struct steering *known;
	__u32 zero = 0, i, at;
	__u32 words[4];
	__u64 hash;
	__u8 first, note, protocol;
	__u16 port;

	known = bpf_map_lookup_elem(&steering, &zero);
	if (!known || bpf_skb_load_bytes(skb, 0, &first, 1))
		return 0;
	hash = known->seed;
	if (first >> 4 == 6) {
		if (bpf_skb_load_bytes(skb, 8, words, sizeof(words)))
			return 0;
		for (i = 0; i < 4; i++)
			hash = mix(hash, words[i] & known->subscriber_mask[i]);
	} else {
		/* Of packets with options, of errors and of later fragments this reads nonsense: they cross. */
		if (bpf_skb_load_bytes(skb, 9, &protocol, 1) || bpf_skb_load_bytes(skb, 16, words, 4) ||
		    bpf_skb_load_bytes(skb, protocol == IPPROTO_ICMP ? 24 : 22, &port, 2))
			return 0;
		hash = mix(mix(hash, words[0]), 1 + (bpf_ntohs(port) >> (known->port_shift & 15)));
	}
	at = hash >> 20 & (NOTES - 1);
	note = known->notes[at];
	return note ? note - 1 : hash >> 40;
}
