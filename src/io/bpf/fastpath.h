/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the fast path's programs and the daemon share in memory. src/io/fastpath/layout.rs says the same in Rust, and a
 * test compares both. Whoever changes a size, an offset or a meaning counts LAYOUT up.
 *
 * Addresses and ports are in network byte order, everything else in the machine's own.
 */
#ifndef SAMPAN_FASTPATH_H
#define SAMPAN_FASTPATH_H

#define LAYOUT 3
#define SCOPES 1024
#define POOLS 32
#define BUCKETS 65536
#define IDENTS 4096
/* Workers that can be told of the end of a connection, and how many ends may wait for each. */
#define LISTENERS 16
#define NOTICES 16384
/* Times of the last packet: nanoseconds shifted by this, so that 32 bits last for nine years. */
#define TICK_SHIFT 26

/*
 * The index: one line of memory holds up to ENTRIES flows, and behind them how many of its flows lie in the next line
 * because it was full. An entry is eight bits of the hash, and the number of a record plus one; zero: nothing.
 */
#define ENTRIES 15
#define SLOT_BITS 24
#define KEY_WORDS 10

/* record.state */
#define STATE_FREE 0
#define STATE_CHANGING 1
#define STATE_LIVE 2

/* config.flags */
#define FIXED_TOS 1
#define FIXED_TRAFFIC_CLASS 2

/* direction.flags, as src/nat64/witness has them */
#define SEEN 0x01
#define ACKED 0x02
#define SCALED 0x04
#define FIN_SEEN 0x10
#define RST_SEEN 0x20

struct key6 {
	__u32 src[4];
	__u32 dst[4];
	__u16 sport;
	__u16 dport;
	__u32 protocol;
};

struct key4 {
	__u32 src;
	__u32 dst;
	__u16 sport;
	__u16 dport;
	__u32 protocol;
};

struct line {
	__u32 entry[ENTRIES];
	__u32 spilled;
};

/* What has been seen from one side: nat64::witness::Direction. */
struct direction {
	__u32 end;
	__u32 ack;
	__u16 window;
	__u8 scale;
	__u8 flags;
};

/* One flow, both ways. The first cache line is only read here, the second one is written for each packet. */
struct record {
	__u32 src6[4];
	__u32 dst6[4];
	__u32 src4;
	__u32 dst4;
	__u16 port6;
	__u16 port4;
	__u16 peer_port;
	__u8 protocol;
	__u8 state;
	/* New words minus old ones from IPv6 to IPv4, folded: of the addresses, and of the ports. */
	__u16 delta_addresses;
	__u16 delta_ports;
	__u16 scope;
	__u16 generation;
	/* Whose the flow is: the worker, and what the flow is to it. */
	__u32 worker;
	__u32 tag;

	__u32 last6;
	__u32 last4;
	__u64 packets6;
	__u64 packets4;
	__u64 bytes6;
	__u64 bytes4;
	struct direction from6;
	struct direction from4;
};

/* Connections that have ended, for one worker: a ring. `head` is the programs', `tail` the worker's. */
struct notices {
	__u32 head;
	__u32 spare[15];
	__u32 tail;
	__u32 spare2[15];
	/* Tag of the record plus one; zero: nothing yet. */
	__u32 of[NOTICES];
};

struct pool6 {
	__u32 addr[4];
	__u32 mask[4];
};

/*
 * Where `high` is not zero, the machine has the address, too: only ports from `low` to `high` are the pool's, in the
 * machine's own byte order, and shared.h says what that takes.
 */
struct pool4 {
	__u32 addr;
	__u32 mask;
	__u16 low;
	__u16 high;
};

struct config {
	__u32 layout;
	__u32 flags;
	/* CLOCK_MONOTONIC, nanoseconds: when the daemon last lived, and how long its rules hold without it. */
	__u64 heartbeat;
	__u64 orphan_limit;
	/* Keeps others from choosing the bucket that they share with somebody. */
	__u64 seed;
	/* Policing, nanoseconds: of one packet (0: none), of a full bucket, and of the part of it for FIN, RST and ICMP. */
	__u64 interval;
	__u64 burst;
	__u64 reserve;
	__u32 subscriber_mask[4];
	__u32 tun;
	__u32 port_shift;
	__u16 mtu6;
	__u16 mtu4;
	__u16 lowest_mtu6;
	__u8 tos;
	__u8 traffic_class;
	/* Identifications of packets with DF clear: this many from there on belong to the programs. */
	__u32 ident_base;
	__u32 ident_span;
	/* Lines of each index less one, and the secret of its hash. */
	__u32 mask6;
	__u32 mask4;
	__u32 secret[KEY_WORDS];
	__u32 pools6;
	__u32 pools4;
	struct pool6 pool6[POOLS];
	struct pool4 pool4[POOLS];
};

/* What became of packets, in the order of `counters`. */
enum counter {
	SENT_V6_TO_V4,
	SENT_V4_TO_V6,
	SEGMENTS_V6_TO_V4,
	SEGMENTS_V4_TO_V6,
	BYTES_V6_TO_V4,
	BYTES_V4_TO_V6,
	UP_MISS,
	UP_STALE,
	UP_ORPHAN,
	UP_CONTROL,
	UP_PROTOCOL,
	UP_FRAGMENT,
	UP_OPTIONS,
	UP_HOP_LIMIT,
	UP_ODD,
	UP_NO_CHECKSUM,
	UP_TOO_BIG,
	UP_ROUTE,
	DROP_POLICED,
	DROP_FAILED,
	COUNTERS,
};

struct counters {
	__u64 of[COUNTERS];
};

_Static_assert(sizeof(struct key6) == 40, "key6");
_Static_assert(sizeof(struct key4) == 16, "key4");
_Static_assert(sizeof(struct line) == 64, "line");
_Static_assert(sizeof(struct record) == 128, "record");
_Static_assert(__builtin_offsetof(struct record, last6) == 64, "record");
_Static_assert(__builtin_offsetof(struct record, from6) == 104, "record");
_Static_assert(sizeof(struct notices) == 128 + NOTICES * 4, "notices");
_Static_assert(sizeof(struct config) == 152 + POOLS * 44, "config");

#endif
