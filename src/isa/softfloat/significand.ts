// Exact arithmetic on the magnitudes of binary floating-point numbers, for all formats up to 64 bits of significand: a magnitude is
// sig / 2^63 * 2^e with the top bit of the 64-bit `sig` set; zero has sig = 0 and an exponent below that of any other operand. Results
// are 128 bits, hi : lo, with the top bit of `hi` set; what lies below bit 0 of `lo` is in that bit ("jamming"), which keeps every later
// rounding right (IEEE 754-2019 section 4; Knuth, The Art of Computer Programming vol. 2, 4.2.1 and algorithm 4.3.1 D).

import type { Code, Local } from "../../wasm/code.ts";
import { i64, op, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";

const TOP = 1n << 63n;

/** hi : lo shifted right by n (0 or more); bits lost are jammed into bit 0. */
export const shiftRightJam = helper("shiftRightJam", ["i64", "i64", "i32"], ["i64", "i64"], (x, hi, lo, n) => {
  const { c } = x;
  c.if(n.eqz(), () => x.done(hi, lo));
  c.if(n.ltU(64), () => {
    const count = c.let(n.zx());
    const back = c.let(i64(64).sub(count));
    const lost = lo.shl(back).ne(0).zx();
    x.done(hi.shrU(count), hi.shl(back).or(lo.shrU(count)).or(lost));
  });
  c.if(n.eq(64), () => x.done(0, hi.or(lo.ne(0).zx())));
  c.if(n.ltU(128), () => {
    const count = c.let(n.sub(64).zx());
    const lost = hi.shl(i64(64).sub(count)).or(lo).ne(0).zx();
    x.done(0, hi.shrU(count).or(lost));
  });
  x.done(0, hi.or(lo).ne(0).zx());
});

/** (e, hi, lo) with hi : lo shifted left until the top bit is set, and the exponent that keeps the value. */
export const normalise = helper("normalise", ["i32", "i64", "i64"], ["i32", "i64", "i64"], (x, e, high, low) => {
  const { c } = x;
  const exponent = c.local("i32", e);
  const hi = c.local("i64", high);
  const lo = c.local("i64", low);
  c.if(hi.eqz(), () => {
    c.set(hi, lo);
    c.set(lo, 0);
    c.set(exponent, exponent.sub(64));
  });
  const count = c.let(hi.clz());
  c.if(count.ne(0), () => {
    c.set(hi, hi.shl(count).or(lo.shrU(i64(64).sub(count))));
    c.set(lo, lo.shl(count));
    c.set(exponent, exponent.sub(count.wrap()));
  });
  x.done(exponent, hi, lo);
});

/** Sum of two magnitudes: (e, hi, lo). */
export const addMagnitudes = helper(
  "addMagnitudes",
  ["i32", "i64", "i32", "i64"],
  ["i32", "i64", "i64"],
  (x, ea, sa, eb, sb) => {
    const { c } = x;
    const swap = c.let(op("i32.lt_s", ea, eb));
    const large = c.let(select(swap, sb, sa));
    const e = c.let(select(swap, eb, ea));
    const distance = select(swap, eb.sub(ea), ea.sub(eb));
    const [hi, lo] = x.callMany(shiftRightJam, select(swap, sa, sb), 0, distance);
    const sum = c.let(hi.add(large));
    c.if(sum.ltU(large), () => x.done(e.add(1), sum.shrU(1).or(TOP), lo.shrU(1).or(sum.shl(63)).or(lo.and(1))));
    x.done(e, sum, lo);
  },
);

/** Difference of two magnitudes: (1 where the second is larger, e, hi, lo); hi = 0 where they are equal. */
export const subtractMagnitudes = helper(
  "subtractMagnitudes",
  ["i32", "i64", "i32", "i64"],
  ["i32", "i32", "i64", "i64"],
  (x, ea, sa, eb, sb) => {
    const { c } = x;
    const swap = c.let(ea.ltS(eb).or(ea.eq(eb).and(sa.ltU(sb))));
    const e = c.let(select(swap, eb, ea));
    const distance = select(swap, eb.sub(ea), ea.sub(eb));
    const [hi, lo] = x.callMany(shiftRightJam, select(swap, sa, sb), 0, distance);
    const high = c.let(select(swap, sb, sa).sub(hi).sub(lo.ne(0).zx()));
    const low = c.let(lo.neg());
    c.if(high.or(low).eqz(), () => x.done(swap, e, 0, 0));
    const [exponent, normalHigh, normalLow] = x.callMany(normalise, e, high, low);
    x.done(swap, exponent, normalHigh, normalLow);
  },
);

/** The 128-bit product of two unsigned 64-bit integers: (hi, lo). */
export const multiplyWide = helper("multiplyWide", ["i64", "i64"], ["i64", "i64"], (x, a, b) => {
  const { c } = x;
  const low32 = 0xffff_ffffn;
  const a0 = c.let(a.and(low32));
  const a1 = c.let(a.shrU(32));
  const b0 = c.let(b.and(low32));
  const b1 = c.let(b.shrU(32));
  const p00 = c.let(a0.mul(b0));
  const p10 = c.let(a1.mul(b0).add(p00.shrU(32)));
  const p01 = c.let(a0.mul(b1).add(p10.and(low32)));
  x.done(a1.mul(b1).add(p10.shrU(32)).add(p01.shrU(32)), p01.shl(32).or(p00.and(low32)));
});

/** Product of two magnitudes, neither zero: (e, hi, lo). */
export const multiplyMagnitudes = helper(
  "multiplyMagnitudes",
  ["i32", "i64", "i32", "i64"],
  ["i32", "i64", "i64"],
  (x, ea, sa, eb, sb) => {
    const { c } = x;
    const [hi, lo] = x.callMany(multiplyWide, sa, sb);
    c.if(hi.ltS(0), () => x.done(ea.add(eb).add(1), hi, lo));
    x.done(ea.add(eb), hi.shl(1).or(lo.shrU(63)), lo.shl(1));
  },
);

/** One 32-bit digit of a quotient, and the remainder: (2^32 * high + digit) / divisor, high < divisor, top bit of the divisor set. */
function quotientDigit(c: Code, high: Val, digit: Val, divisor: Val): { quotient: Local; rest: Val } {
  const d1 = divisor.shrU(32);
  const d0 = divisor.and(0xffff_ffffn);
  const quotient = c.local("i64", high.divU(d1));
  const rest = c.local("i64", high.sub(quotient.mul(d1)));
  c.block((done) => {
    c.loop((again) => {
      const tooLarge = quotient
        .shrU(32)
        .ne(0)
        .or(quotient.mul(d0).gtU(rest.shl(32).or(digit)));
      c.brIf(done, tooLarge.eqz());
      c.set(quotient, quotient.sub(1));
      c.set(rest, rest.add(d1));
      c.brIf(again, rest.shrU(32).eqz());
    });
  });
  return { quotient, rest: c.let(high.shl(32).or(digit).sub(quotient.mul(divisor))) };
}

/** 128 by 64 bits, hi < divisor, top bit of the divisor set: (quotient, remainder). */
export const divideWide = helper("divideWide", ["i64", "i64", "i64"], ["i64", "i64"], (x, hi, lo, divisor) => {
  const { c } = x;
  const first = quotientDigit(c, hi, c.let(lo.shrU(32)), divisor);
  const second = quotientDigit(c, first.rest, c.let(lo.and(0xffff_ffffn)), divisor);
  x.done(first.quotient.shl(32).or(second.quotient), second.rest);
});

/** Quotient of two magnitudes, neither zero: (e, hi, lo); lo holds the next bit and whether more follow. */
export const divideMagnitudes = helper(
  "divideMagnitudes",
  ["i32", "i64", "i32", "i64"],
  ["i32", "i64", "i64"],
  (x, ea, sa, eb, sb) => {
    const { c } = x;
    const less = c.let(sa.ltU(sb));
    const high = select(less, sa, sa.shrU(1));
    const low = select(less, i64(0), sa.shl(63));
    const [quotient, rest] = x.callMany(divideWide, high, low, sb);
    const gap = c.let(sb.sub(rest));
    const half = rest.geU(gap).zx().shl(63);
    const more = rest.ne(0).and(rest.ne(gap)).zx();
    x.done(ea.sub(eb).sub(less), quotient, half.or(more));
  },
);

/** Square root of a magnitude that is not zero: (e, hi, lo). The root of 53 bits that the host computes is corrected to all 64. */
export const rootMagnitude = helper("rootMagnitude", ["i32", "i64"], ["i32", "i64", "i64"], (x, e, sig) => {
  const { c } = x;
  // The radicand hi : lo is in [2^126, 2^128), so that its root has 64 bits.
  const odd = c.let(e.and(1));
  const hi = c.let(select(odd, sig, sig.shrU(1)));
  const lo = c.let(select(odd, i64(0), sig.shl(63)));
  const estimate = c.let(
    op("f64.min", op("f64.sqrt", op("f64.mul", op("f64.convert_i64_u", hi), 2 ** 64)), 2 ** 64 - 2 ** 11),
  );
  const root = c.local("i64", op("i64.trunc_f64_u", estimate));
  // One step of Newton's method: the remainder over twice the root, which f64 holds with more than enough precision.
  const [squareHigh, squareLow] = x.callMany(multiplyWide, root, root);
  const borrow = lo.ltU(squareLow).zx();
  const restHigh = op("f64.convert_i64_s", hi.sub(squareHigh).sub(borrow));
  const rest = op("f64.add", op("f64.mul", restHigh, 2 ** 64), op("f64.convert_i64_u", lo.sub(squareLow)));
  const step = op("f64.div", rest, op("f64.mul", estimate, 2));
  const limited = c.let(root.add(op("i64.trunc_f64_s", op("f64.floor", step))));
  // A step beyond the range of roots would have wrapped around.
  const bound = select(op("f64.gt", estimate, 1.5 * 2 ** 63), i64(-1), i64(TOP));
  c.set(root, select(limited.geS(0), bound, limited));
  const square = (): Local[] => x.callMany(multiplyWide, root, root);
  const above = ([high, low]: Local[]): Val => high.gtU(hi).or(high.eq(hi).and(low.gtU(lo)));
  const remainderHigh = c.local("i64");
  const remainderLow = c.local("i64");
  c.loop((again) => {
    const squared = square();
    c.if(above(squared), () => {
      c.set(root, root.sub(1));
      c.br(again);
    });
    c.set(remainderHigh, hi.sub(squared[0]).sub(lo.ltU(squared[1]).zx()));
    c.set(remainderLow, lo.sub(squared[1]));
    // The root is too small by one or more where the remainder exceeds twice the root.
    const twice = c.let(root.shl(1));
    const beyond = remainderHigh.gtU(1).or(remainderHigh.eq(1).and(remainderLow.gtU(twice)));
    c.if(beyond, () => {
      c.set(root, root.add(1));
      c.br(again);
    });
  });
  // root + 1/2 squared is root^2 + root + 1/4: the remainder against the root tells on which side of one half the fraction lies.
  const aboveHalf = remainderHigh.ne(0).or(remainderLow.gtU(root)).zx().shl(63);
  const more = remainderHigh.or(remainderLow).ne(0).zx();
  x.done(e.shrS(1), root, aboveHalf.or(more));
});
