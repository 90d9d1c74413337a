// Operands and states for x87 instructions: what is at the edges of the formats, and pairs that lie close together.

const MASK64 = (1n << 64n) - 1n;

/** xorshift64* by a seed, so that a failure can be repeated. */
export class Random {
  private state: bigint;
  constructor(seed: number) {
    this.state = (BigInt(seed) * 0x9e3779b97f4a7c15n) | 1n;
  }
  next64(): bigint {
    let s = this.state & MASK64;
    s ^= s >> 12n;
    s = (s ^ (s << 25n)) & MASK64;
    s ^= s >> 27n;
    this.state = s;
    return (s * 0x2545f4914f6cdd1dn) & MASK64;
  }
  below(n: number): number {
    return Number((this.next64() >> 20n) % BigInt(n));
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

export interface Value80 {
  sig: bigint;
  se: number;
}

const TOP = 1n << 63n;

/** Significands: few bits, runs of ones, near the rounding positions of 24, 53 and 64 bits. */
export function significand(r: Random): bigint {
  const any = r.next64();
  switch (r.below(7)) {
    case 0:
      return any | TOP;
    case 1:
      return TOP | (1n << BigInt(r.below(64))) | (r.chance(50) ? 1n << BigInt(r.below(64)) : 0n);
    case 2:
      return ((MASK64 << BigInt(r.below(64))) & MASK64) | TOP;
    case 3:
      return MASK64 - (1n << BigInt(r.below(63)));
    case 4:
      return (any | TOP) & (MASK64 << BigInt(r.pick([38, 39, 40, 41, 10, 11, 12, 32, 1]))) & MASK64;
    case 5:
      return ((any | TOP) & (MASK64 << BigInt(r.pick([38, 39, 40, 41, 9, 10, 11, 12])))) + BigInt(r.below(3));
    default:
      return TOP;
  }
}

export function value80(r: Random): Value80 {
  const sign = r.below(2) << 15;
  switch (r.below(24)) {
    case 0:
      return { sig: 0n, se: sign };
    case 1:
      return { sig: TOP, se: sign | 0x7fff };
    case 2:
      return { sig: r.next64() | (3n << 62n), se: sign | 0x7fff };
    case 3:
      return { sig: ((r.next64() & (MASK64 >> 2n)) | TOP) + (r.chance(10) ? 1n : 0n), se: sign | 0x7fff };
    case 4:
      return { sig: r.chance(50) ? r.next64() >> 1n : r.next64() >> BigInt(r.below(62) + 1), se: sign };
    case 5:
      return { sig: significand(r), se: sign };
    case 6:
      return { sig: r.next64() >> 1n, se: sign | r.below(0x8000) };
    case 7:
      return { sig: significand(r), se: sign | r.below(0x7fff) };
    case 8:
      return { sig: significand(r), se: sign | (1 + r.below(70)) };
    case 9:
      return { sig: significand(r), se: sign | (0x7ffe - r.below(70)) };
    case 10:
    case 11: {
      const n = r.next64() >> BigInt(r.below(63));
      if (n === 0n) return { sig: 0n, se: sign };
      const shift = 64 - n.toString(2).length;
      return { sig: n << BigInt(shift), se: sign | (16383 + 63 - shift) };
    }
    case 12:
      return { sig: significand(r), se: sign | (16383 - 127 + r.below(256)) };
    case 13:
      return {
        sig: significand(r),
        se: sign | (16383 + r.pick([-1023, 1023, -127, 127, -149, -1075]) - 30 + r.below(60)),
      };
    case 14:
      return { sig: significand(r), se: sign | (16383 + r.pick([15, 31, 59, 60, 63, 62, 64, 14, 30])) };
    default:
      return { sig: significand(r), se: sign | (16383 - 66 + r.below(132)) };
  }
}

/** A value whose exponent is near that of another, or that differs in the last places. */
export function near(r: Random, other: Value80): Value80 {
  const sign = r.below(2) << 15;
  if (r.chance(30)) return { sig: (other.sig + BigInt(r.below(5)) - 2n) & MASK64, se: other.se ^ sign };
  const exponent = Math.min(0x7ffe, Math.max(0, (other.se & 0x7fff) + r.below(140) - 70));
  return { sig: significand(r), se: sign | exponent };
}

/** Eight bytes for a memory operand of any kind. */
export function operand(r: Random): bigint {
  const sign = BigInt(r.below(2)) << 63n;
  switch (r.below(9)) {
    case 0:
      return sign;
    case 1:
      return sign | (0x7ffn << 52n) | (r.next64() >> BigInt(12 + r.below(52)));
    case 2:
      return sign | (0x7ffn << 52n);
    case 3:
      return sign | (r.next64() >> BigInt(12 + r.below(52)));
    case 4: {
      // Two singles.
      const half = (): bigint => {
        const s = BigInt(r.below(2)) << 31n;
        const f = r.next64() & 0x7fffffn;
        return s | r.pick([f, f >> 10n, 0x7f800000n | f, 0x7f800000n, 0x3f800000n | f, (f << 8n) & 0x7fffffffn, 0n]);
      };
      return (half() << 32n) | half();
    }
    case 5:
      return sign | ((1023n + BigInt(r.below(80)) - 40n) << 52n) | (r.next64() >> 12n);
    case 6:
      return (BigInt(r.below(20)) - 10n) & MASK64;
    default:
      return r.next64();
  }
}
