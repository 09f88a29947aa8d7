/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A hash that a secret seed begins: good enough where a collision costs little. */
#ifndef SAMPAN_MIX_H
#define SAMPAN_MIX_H

static __always_inline __u64 mix(__u64 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

#endif
