// Multiplication and division (SDM Vol. 2A-2B: DIV, IDIV, IMUL, MUL). A quotient that does not fit raises #DE and changes nothing.

import { i64, type Val } from "../../wasm/value.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Bits, Sem } from "../semantics.ts";
import { GPR, VECTOR } from "../state.ts";
import { divide128, multiplyHighSigned, multiplyHighUnsigned } from "./wide.ts";

/** Two's complement value of an operand, in i32 up to 16 bits and in i64 above. */
function signed(bits: Bits, value: Val): Val {
  if (bits === 8 || bits === 16) return value.extend(bits);
  return bits === 32 ? value.sx() : value;
}

function unsigned(bits: Bits, value: Val): Val {
  return bits === 32 ? value.zx() : value;
}

/** Writes the accumulator pair: AX for bytes, else rDX:rAX. */
function setPair(x: Sem, bits: Bits, high: Val, low: Val): void {
  if (bits === 8) {
    x.setGpr(GPR.RAX, 16, high.shl(8).or(low.and(0xff)));
    return;
  }
  const fixed = x.c.let(high);
  x.setGpr(GPR.RAX, bits, low);
  x.setGpr(GPR.RDX, bits, fixed);
}

/** MUL and one-operand IMUL. CF and OF tell whether the high half carries anything. */
function multiply(isSigned: boolean): (x: Sem) => void {
  const extend = isSigned ? signed : unsigned;
  return (x) => {
    const { c } = x;
    const bits = x.bits(0) as Bits;
    const a = c.let(extend(bits, x.gpr(GPR.RAX, bits)));
    const b = c.let(extend(bits, x.read(0)));
    const product = c.let(a.mul(b));
    if (bits === 64) {
      const high = x.call(isSigned ? multiplyHighSigned : multiplyHighUnsigned, a, b);
      const excess = c.let(high.ne(isSigned ? product.shrS(63) : 0));
      setPair(x, 64, high, product);
      x.flagsResult(64, product, excess, excess);
      return;
    }
    const fits = extend(bits, bits === 32 ? product.wrap() : isSigned ? product : product.and(2 ** bits - 1));
    const excess = c.let(product.ne(fits));
    if (bits === 32) setPair(x, 32, product.shrU(32).wrap(), product.wrap());
    else setPair(x, bits, product.shrU(bits), product);
    x.flagsResult(bits, c.let(product.wrap()), excess, excess);
  };
}

/** IMUL to a register: the product cut to the operand size; CF and OF tell whether that lost anything. */
function multiplyTo(x: Sem, first: Val, second: Val): void {
  const { c } = x;
  const bits = x.bits(0) as Bits;
  const a = c.let(signed(bits, first));
  const b = c.let(signed(bits, second));
  const product = c.let(a.mul(b));
  const low = c.let(bits === 32 ? product.wrap() : product);
  x.write(0, low);
  x.flagsProduct(bits, low, [a, b, product], () =>
    bits === 64 ? x.call(multiplyHighSigned, a, b).ne(product.shrS(63)) : product.ne(signed(bits, product.wrap())),
  );
}

/** The dividend of 8 to 32-bit divisions: AX, DX:AX as i32, EDX:EAX as i64. */
function dividend(x: Sem, bits: Bits): Val {
  if (bits === 8) return x.gpr(GPR.RAX, 16);
  if (bits === 16) return x.gpr(GPR.RDX, 16).shl(16).or(x.gpr(GPR.RAX, 16));
  return x.gpr(GPR.RDX, 32).zx().shl(32).or(x.gpr(GPR.RAX, 32).zx());
}

function setQuotient(x: Sem, bits: Bits, quotient: Val, remainder: Val): void {
  setPair(x, bits, bits === 32 ? remainder.wrap() : remainder, bits === 32 ? quotient.wrap() : quotient);
}

function divideUnsigned(x: Sem): void {
  const { c } = x;
  const bits = x.bits(0) as Bits;
  const divisor = c.let(unsigned(bits, x.read(0)));
  if (bits === 64) {
    const high = c.let(x.gpr(GPR.RDX, 64));
    // Also holds for a divisor of zero.
    x.raiseIf(high.geU(divisor), VECTOR.DE);
    const [quotient, remainder] = x.callMany(divide128, high, x.gpr(GPR.RAX, 64), divisor);
    setPair(x, 64, remainder, quotient);
    return;
  }
  x.raiseIf(divisor.eqz(), VECTOR.DE);
  const value = c.let(dividend(x, bits));
  const quotient = c.let(value.divU(divisor));
  x.raiseIf(quotient.gtU(bits === 32 ? 0xffffffffn : 2 ** bits - 1), VECTOR.DE);
  setQuotient(x, bits, quotient, c.let(value.remU(divisor)));
}

/** 128 by 64 bits, signed: on magnitudes, with the quotient's sign checked after. */
function divideSigned64(x: Sem, divisor: Val): void {
  const { c } = x;
  const low = c.let(x.gpr(GPR.RAX, 64));
  const high = c.let(x.gpr(GPR.RDX, 64));
  const minus = c.let(high.shrS(63));
  const absoluteLow = c.let(low.xor(minus).sub(minus));
  const absoluteHigh = c.let(high.xor(minus).add(minus.and(low.eqz().zx())));
  const divisorMinus = c.let(divisor.shrS(63));
  const absoluteDivisor = c.let(divisor.xor(divisorMinus).sub(divisorMinus));
  x.raiseIf(absoluteHigh.geU(absoluteDivisor), VECTOR.DE);
  const [q, r] = x.callMany(divide128, absoluteHigh, absoluteLow, absoluteDivisor);
  const sign = c.let(minus.xor(divisorMinus));
  // The largest magnitude is 2^63 - 1, or 2^63 for a negative quotient.
  x.raiseIf(q.gtU(i64(0x7fffffffffffffffn).sub(sign)), VECTOR.DE);
  setPair(x, 64, r.xor(minus).sub(minus), q.xor(sign).sub(sign));
}

function divideSigned(x: Sem): void {
  const { c } = x;
  const bits = x.bits(0) as Bits;
  const divisor = c.let(signed(bits, x.read(0)));
  if (bits === 64) {
    divideSigned64(x, divisor);
    return;
  }
  x.raiseIf(divisor.eqz(), VECTOR.DE);
  // One size up, so that the smallest dividend by -1 is an ordinary quotient except for EDX:EAX, which is checked.
  const value = c.let(bits === 8 ? dividend(x, 8).extend(16) : bits === 16 ? dividend(x, 16).sx() : dividend(x, 32));
  const by = c.let(bits === 16 ? divisor.sx() : divisor);
  if (bits === 32) x.raiseIf(value.eq(-(1n << 63n)).and(by.eq(-1)), VECTOR.DE);
  const quotient = c.let(value.divS(by));
  const remainder = c.let(value.remS(by));
  x.raiseIf(quotient.ne(quotient.extend(bits)), VECTOR.DE);
  if (bits === 16) setPair(x, 16, remainder.wrap(), quotient.wrap());
  else setQuotient(x, bits, quotient, remainder);
}

const PRODUCT_FLAGS = { writes: "OC", undefined: "SZAP" };
const QUOTIENT_FLAGS = { undefined: "OSZAPC" };

export const MULTIPLY: InstructionGroup = [
  { name: "MUL", rows: ["F6 /4: Eb", "F7 /4: Ev"], ...PRODUCT_FLAGS, semantics: multiply(false) },
  { name: "IMUL", rows: ["F6 /5: Eb", "F7 /5: Ev"], ...PRODUCT_FLAGS, semantics: multiply(true) },
  {
    name: "IMUL",
    rows: ["0F AF /r: Gv, Ev"],
    ...PRODUCT_FLAGS,
    hot: true,
    semantics: (x) => multiplyTo(x, x.read(0), x.read(1)),
  },
  {
    name: "IMUL",
    rows: ["69 /r: Gv, Ev, Iz", "6B /r: Gv, Ev, sIb"],
    ...PRODUCT_FLAGS,
    hot: true,
    semantics: (x) => multiplyTo(x, x.read(1), x.read(2)),
  },
  { name: "DIV", rows: ["F6 /6: Eb", "F7 /6: Ev"], ...QUOTIENT_FLAGS, semantics: divideUnsigned },
  { name: "IDIV", rows: ["F6 /7: Eb", "F7 /7: Ev"], ...QUOTIENT_FLAGS, semantics: divideSigned },
];
