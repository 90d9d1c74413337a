// Reproducible random numbers and the values that instructions stumble over.

/** xoshiro128** (Blackman and Vigna); 32 bits a call. */
export class Random {
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;

  constructor(seed: number) {
    // SplitMix-like spreading, so that neighbouring seeds share nothing.
    let z = seed >>> 0;
    const spread = (): number => {
      z = (z + 0x9e3779b9) >>> 0;
      let t = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      t = Math.imul(t ^ (t >>> 15), 0x735a2d97);
      return (t ^ (t >>> 15)) >>> 0;
    };
    this.#a = spread();
    this.#b = spread();
    this.#c = spread();
    this.#d = spread() | 1;
  }

  next(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(percent: number): boolean {
    return this.next() % 100 < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.next() % list.length];
  }

  bits64(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }
}

const U64 = (1n << 64n) - 1n;

const EDGES: readonly bigint[] = [8n, 16n, 32n, 64n]
  .flatMap((bits) => {
    const top = 1n << (bits - 1n);
    return [
      0n,
      1n,
      2n,
      top - 1n,
      top,
      top + 1n,
      2n * top - 2n,
      2n * top - 1n,
      (2n * top) & U64,
      (-1n * top) & U64,
      (-1n * top - 1n) & U64,
    ];
  })
  .concat([
    3n,
    0xfn,
    0x10n,
    0x3fn,
    0x40n,
    0x99n,
    0x9an,
    0x5555555555555555n,
    0xaaaaaaaaaaaaaaaan,
    0x0f0f0f0f0f0f0f0fn,
    U64,
    U64 - 1n,
  ]);

/** A value for a general register or an integer in memory. */
export function integer64(r: Random): bigint {
  switch (r.below(8)) {
    case 0:
    case 1:
    case 2:
      return r.pick(EDGES);
    case 3:
      return BigInt(r.below(256));
    case 4:
      return 1n << BigInt(r.below(64));
    case 5:
      return -BigInt(r.below(70000)) & U64;
    default:
      return r.bits64();
  }
}

const SINGLES: readonly number[] = [
  0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x3f000000, 0x3fc00000, 0x40000000, 0xc0200000, 0x00000001,
  0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000,
  0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fbfffff, 0x7fc12345, 0xffffffff, 0x4effffff, 0x4f000000,
  0xcf000000, 0xcf000001, 0x5f000000, 0xdf000000, 0x5effffff, 0x4b000001, 0x3effffff, 0x3f000001, 0x3f7fffff,
  0x40490fdb, 0x33800000, 0x34000000, 0x1f800000, 0x20000000, 0x5f800000, 0x00400000, 0x3eaaaaab,
];

const DOUBLES: readonly bigint[] = [
  0x0000000000000000n,
  0x8000000000000000n,
  0x3ff0000000000000n,
  0xbff0000000000000n,
  0x3fe0000000000000n,
  0x3ff8000000000000n,
  0x4000000000000000n,
  0xc004000000000000n,
  0x0000000000000001n,
  0x8000000000000001n,
  0x000fffffffffffffn,
  0x800fffffffffffffn,
  0x0010000000000000n,
  0x8010000000000000n,
  0x7fefffffffffffffn,
  0xffefffffffffffffn,
  0x7ff0000000000000n,
  0xfff0000000000000n,
  0x7ff8000000000000n,
  0xfff8000000000000n,
  0x7ff0000000000001n,
  0xfff0000000000001n,
  0x7ff7ffffffffffffn,
  0x7ff8123456789abcn,
  0xffffffffffffffffn,
  0x41dfffffffc00000n,
  0x41dfffffffe00000n,
  0x41e0000000000000n,
  0xc1e0000000000000n,
  0xc1e0000000200000n,
  0xc1e0000000100000n,
  0x43e0000000000000n,
  0xc3e0000000000000n,
  0x43dfffffffffffffn,
  0x4330000000000001n,
  0x3fdfffffffffffffn,
  0x3fe0000000000001n,
  0x3fefffffffffffffn,
  0x400921fb54442d18n,
  0x3e70000000000000n,
  0x47efffffe0000000n,
  0x47effffff0000000n,
  0x3810000000000000n,
  0x380fffffffffffffn,
  0x36a0000000000000n,
  0x3690000000000000n,
  0x1ff0000000000000n,
  0x5fe0000000000000n,
];

export function single(r: Random): number {
  switch (r.below(6)) {
    case 0:
    case 1:
    case 2:
      return r.pick(SINGLES);
    case 3:
      // Exponents near each other, so that sums and differences round.
      return ((r.below(2) << 31) | ((110 + r.below(36)) << 23) | (r.next() & 0x7fffff)) >>> 0;
    case 4:
      return ((r.below(2) << 31) | ((110 + r.below(50)) << 23) | (r.next() & 0x700000)) >>> 0;
    default:
      return r.next();
  }
}

export function double(r: Random): bigint {
  const sign = BigInt(r.below(2)) << 63n;
  switch (r.below(6)) {
    case 0:
    case 1:
    case 2:
      return r.pick(DOUBLES);
    case 3:
      return sign | (BigInt(1000 + r.below(70)) << 52n) | (r.bits64() & 0xfffffffffffffn);
    case 4:
      return sign | (BigInt(1000 + r.below(90)) << 52n) | (r.bits64() & 0xf000000000000n);
    default:
      return r.bits64();
  }
}

const SIGNIFICANDS: readonly bigint[] = [
  0n,
  1n,
  1n << 63n,
  (1n << 63n) + 1n,
  U64,
  3n << 62n,
  (3n << 62n) + 1n,
  (1n << 63n) - 1n,
  1n << 62n,
  (1n << 63n) | 0x400n,
  (1n << 63n) | 0x3ffn,
  (1n << 63n) | (1n << 39n),
  (1n << 63n) | ((1n << 40n) - 1n),
  0xc90fdaa22168c235n,
  0xfffffffffffff800n,
  0xffffff8000000000n,
];
const EXPONENTS: readonly number[] = [
  0, 1, 2, 0x3ffe, 0x3fff, 0x4000, 0x4001, 0x400e, 0x401e, 0x403e, 0x403d, 0x4040, 0x7ffe, 0x7fff, 0x7fff, 0x3c01,
  0x3c00, 0x3bcd, 0x43fe, 0x43ff, 0x3f81, 0x3f80, 0x3f6a, 0x407e, 0x407f, 0x3fbf,
];

/** An 80-bit floating-point value, among them the encodings that no instruction makes: significand, sign and exponent. */
export function extended(r: Random): readonly [bigint, number] {
  const sign = r.below(2) << 15;
  switch (r.below(6)) {
    case 0:
      return [r.pick(SIGNIFICANDS), sign | r.pick(EXPONENTS)];
    case 1:
      return [(r.pick(SIGNIFICANDS) | (1n << 63n)) & U64, sign | r.pick(EXPONENTS)];
    case 2:
      return [(BigInt(r.below(100)) * (1n << 57n)) | (1n << 63n), sign | (0x3fff + r.below(8))];
    case 3:
      return [r.bits64() | (1n << 63n), sign | (0x3fe0 + r.below(0x50))];
    case 4:
      return [r.bits64() | (1n << 63n), sign | r.below(0x7fff)];
    default:
      return r.pick<readonly [bigint, number]>([
        [0n, sign],
        [1n << 63n, sign | 0x7fff],
        [3n << 62n, sign | 0x7fff],
        [(1n << 63n) | 5n, sign | 0x7fff],
        [1n << 63n, sign | 0x3fff],
      ]);
  }
}
