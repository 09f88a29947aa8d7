/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the steering program and the workers share; src/io/steering.rs says the same in Rust; where the
 * two disagree packets cross, which tests/netns counts.
 */
#ifndef SAMPAN_STEER_H
#define SAMPAN_STEER_H

#define NOTES 65536

struct steering {
	/* Keeps others from choosing the note that they share with somebody. */
	__u64 seed;
	__u32 subscriber_mask[4];
	/* Ports of a block, as a power of two. */
	__u32 port_shift;
	__u32 spare;
	/* Number of the worker plus one; zero: not known. */
	__u8 notes[NOTES];
};

_Static_assert(sizeof(struct steering) == 32 + NOTES, "steering");

#endif
