// The host of a deterministic machine: random bytes follow from a seed, and the guest always wakes up on the same day.
// The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). Its numbers are no secret.

import type { Host } from "../host/host.ts";
import type { Schema, Stateful } from "../vmm/state.ts";

/** 2026-01-01 00:00:00 UTC. */
const WALL_CLOCK = 1_767_225_600_000;
const MASK = (1n << 64n) - 1n;
const GAMMA = 0x9e3779b97f4a7c15n;

export class SeededRandom implements Stateful {
  readonly schema: Schema = { kind: "seeded-random", version: 1, fields: { state: "u64" }, derived: [] };
  private state: bigint;

  constructor(seed: number) {
    this.state = BigInt(seed) & MASK;
  }

  next(): bigint {
    this.state = (this.state + GAMMA) & MASK;
    let z = this.state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return z ^ (z >> 31n);
  }

  /** 32 bits, for RDRAND and RDSEED. */
  word(): number {
    return Number(this.next() >> 32n);
  }

  fill(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 8) {
      let word = this.next();
      for (let n = at; n < Math.min(at + 8, bytes.length); n++) {
        bytes[n] = Number(word & 0xffn);
        word >>= 8n;
      }
    }
  }
}

export class SeededHost implements Host {
  readonly random: SeededRandom;
  readonly engineModule: WebAssembly.Module;
  readonly now: () => number;

  constructor(host: Host, seed: number) {
    this.random = new SeededRandom(seed);
    this.engineModule = host.engineModule;
    this.now = host.now;
  }

  wallClock(): number {
    return WALL_CLOCK;
  }

  randomFill(bytes: Uint8Array): void {
    this.random.fill(bytes);
  }
}
