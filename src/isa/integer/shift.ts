// Shifts and rotates (SDM Vol. 2B: RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD, SHRD). A masked count of zero changes no flag.
// Where the manual leaves OF undefined (counts other than 1) it gets what the formula for 1 gives.

import { i32, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Bits, Sem } from "../semantics.ts";
import { FLAG } from "../state.ts";

/** A shift in progress: the value as read, and the masked count as i32. */
interface Shift {
  readonly x: Sem;
  readonly bits: Bits;
  readonly value: Val;
  readonly count: Val;
}

/** The count in the type of a value. */
function as(value: Val, count: Val): Val {
  return value.type === "i64" ? count.zx() : count;
}

function bit(value: Val, at: Val | number): Val {
  return value.shrU(at).and(1).wrap();
}

function sign(bits: Bits, value: Val): Val {
  return bit(value, bits - 1);
}

/** CF and OF from a rotate, the others kept. */
function setRotateFlags(x: Sem, carry: Val, overflow: Val): void {
  x.setSomeFlags(FLAG.CF | FLAG.OF, carry.or(overflow.shl(11)));
}

function narrow(bits: Bits, value: Val): Val {
  return bits < 32 ? value.and(2 ** bits - 1) : value;
}

function shl({ x, bits, value, count }: Shift): Val {
  const { c } = x;
  if (bits === 64) {
    const result = c.let(value.shl(count.zx()));
    c.if(count, () => {
      const carry = c.let(sign(64, value.shl(count.sub(1).zx())));
      x.flagsResult(64, result, carry, sign(64, result).xor(carry));
    });
    return result;
  }
  const wide = c.let(bits === 32 ? value.zx().shl(count.zx()) : value.shl(count));
  const result = c.let(wide.wrap());
  c.if(count, () => {
    const carry = c.let(bit(wide, bits));
    x.flagsResult(bits, result, carry, sign(bits, result).xor(carry));
  });
  return result;
}

function shr({ x, bits, value, count }: Shift): Val {
  const { c } = x;
  const result = c.let(value.shrU(as(value, count)));
  c.if(count, () => x.flagsResult(bits, result, c.let(bit(value, as(value, count.sub(1)))), sign(bits, value)));
  return result;
}

function sar({ x, bits, value, count }: Shift): Val {
  const { c } = x;
  const signed = c.let(bits === 8 || bits === 16 ? value.extend(bits) : value);
  const result = c.let(signed.shrS(as(value, count)));
  c.if(count, () =>
    x.flagsResult(
      bits,
      result,
      c.let(
        signed
          .shrS(as(value, count.sub(1)))
          .and(1)
          .wrap(),
      ),
      i32(0),
    ),
  );
  return result;
}

function rol({ x, bits, value, count }: Shift): Val {
  const { c } = x;
  let rotated: Val;
  if (bits >= 32) rotated = value.rotl(as(value, count));
  else {
    const n = c.let(count.and(bits - 1));
    rotated = narrow(bits, value.shl(n).or(value.shrU(n.neg().add(bits))));
  }
  const result = c.let(rotated);
  c.if(count, () => {
    const carry = c.let(result.and(1).wrap());
    setRotateFlags(x, carry, sign(bits, result).xor(carry));
  });
  return result;
}

function ror({ x, bits, value, count }: Shift): Val {
  const { c } = x;
  let rotated: Val;
  if (bits >= 32) rotated = value.rotr(as(value, count));
  else {
    const n = c.let(count.and(bits - 1));
    rotated = narrow(bits, value.shrU(n).or(value.shl(n.neg().add(bits))));
  }
  const result = c.let(rotated);
  c.if(count, () => {
    const carry = c.let(sign(bits, result));
    setRotateFlags(x, carry, bit(result, bits - 2).xor(carry));
  });
  return result;
}

/** Rotates 8 to 32 bits and the carry together left by `n` (1 to bits), an i32. */
function rotateNarrow(x: Sem, bits: Bits, value: Val, n: Val): { result: Val; carry: Val } {
  const { c } = x;
  const places = c.let(n.zx());
  const joined = c.let(value.zx().or(x.carry().zx().shl(bits)));
  const rotated = c.let(joined.shl(places).or(joined.shrU(places.neg().add(bits + 1))));
  return { result: c.let(narrow(bits, rotated.wrap())), carry: c.let(bit(rotated, bits)) };
}

/** Rotates 64 bits and the carry by `n` (1 to 63), an i32; the part that moves by 65 - n does so in two steps, as no shift reaches 64. */
function rotateWide(x: Sem, value: Val, n: Val, right: boolean): { result: Val; carry: Val } {
  const { c } = x;
  const places = c.let(n.zx());
  const back = c.let(places.neg().add(64));
  const carry = x.carry().zx();
  const result = right
    ? value.shrU(places).or(carry.shl(back)).or(value.shl(1).shl(back))
    : value
        .shl(places)
        .or(carry.shl(places.sub(1)))
        .or(value.shrU(1).shrU(back));
  return { result: c.let(result), carry: c.let(bit(value, right ? places.sub(1) : back)) };
}

/** RCL, and RCR of up to 32 bits as a rotation left by what is missing to a full turn of bits + 1. */
function rotateWithCarry(right: boolean): (shift: Shift) => Val {
  return ({ x, bits, value, count }) => {
    const { c } = x;
    const turns = c.let(bits < 32 ? count.remU(bits + 1) : count);
    const result = c.local(value.type, value);
    c.if(turns, () => {
      const rotated =
        bits === 64
          ? rotateWide(x, value, turns, right)
          : rotateNarrow(x, bits, value, c.let(right ? turns.neg().add(bits + 1) : turns));
      c.set(result, rotated.result);
      const top = sign(bits, rotated.result);
      setRotateFlags(x, rotated.carry, top.xor(right ? bit(rotated.result, bits - 2) : rotated.carry));
    });
    return result;
  };
}

/** Opcodes of one operation: by 1, by an immediate or CL. Flags that a zero count keeps count as read. */
function shiftPair(
  name: string,
  digits: readonly number[],
  flags: { one: Partial<Instruction>; many: Partial<Instruction> },
  operation: (shift: Shift) => Val,
  hot: boolean,
): Instruction[] {
  const semantics = (x: Sem): void => {
    const bits = x.bits(0) as Bits;
    const count = x.c.let(x.read(1).and(bits === 64 ? 63 : 31));
    x.modify(0, (old) => operation({ x, bits, value: x.c.let(old), count }));
  };
  return [
    { name, rows: digits.flatMap((d) => [`D0 /${d}: Eb, 1`, `D1 /${d}: Ev, 1`]), ...flags.one, hot, semantics },
    {
      name,
      rows: digits.flatMap((d) => [`C0 /${d}: Eb, Ib`, `C1 /${d}: Ev, Ib`, `D2 /${d}: Eb, CL`, `D3 /${d}: Ev, CL`]),
      ...flags.many,
      hot,
      semantics,
    },
  ];
}

const SHIFT_FLAGS = {
  one: { writes: "OSZPC", undefined: "A" },
  many: { reads: "OSZAPC", writes: "SZPC", undefined: "OA" },
};
const ROTATE_FLAGS = { one: { writes: "OC" }, many: { reads: "OC", writes: "C", undefined: "O" } };
const CARRY_ROTATE_FLAGS = { one: { reads: "C", writes: "OC" }, many: ROTATE_FLAGS.many };

/** SHLD and SHRD: with 16 bits and counts above 16 the result is undefined; here, as on AMD's processors, the source follows once more and CF is clear. */
function double(left: boolean): (x: Sem) => void {
  return (x) => {
    const { c } = x;
    const bits = x.bits(0) as Bits;
    const source = x.read(1);
    const count = c.let(x.read(2).and(bits === 64 ? 63 : 31));
    x.modify(0, (old) => {
      const value = c.let(old);
      const result = c.local(value.type, value);
      c.if(count, () => {
        const n = c.let(count.zx());
        let carry: Val;
        if (bits === 64) {
          const back = n.neg().add(64);
          c.set(result, left ? value.shl(n).or(source.shrU(back)) : value.shrU(n).or(source.shl(back)));
          carry = bit(value, left ? back : n.sub(1));
        } else if (bits === 32) {
          const first = left ? value : source;
          const second = left ? source : value;
          const joined = c.let(first.zx().shl(32).or(second.zx()));
          c.set(result, (left ? joined.shl(n).shrU(32) : joined.shrU(n)).wrap());
          carry = left ? bit(joined.shl(n.sub(1)), 63) : bit(joined, n.sub(1));
        } else {
          const twice = source.shl(16).or(source).zx();
          const row = c.let(left ? value.zx().shl(32).or(twice) : twice.shl(16).or(value.zx()));
          c.set(result, (left ? row.shl(n).shrU(32) : row.shrU(n)).wrap().and(0xffff));
          carry = (left ? bit(row.shl(n), 48) : bit(row, n.sub(1))).and(count.leU(16));
        }
        const fixedCarry = c.let(carry);
        x.flagsResult(bits, result, fixedCarry, sign(bits, result).xor(sign(bits, value)));
      });
      return result;
    });
  };
}

export const SHIFT: InstructionGroup = [
  ...shiftPair("ROL", [0], ROTATE_FLAGS, rol, true),
  ...shiftPair("ROR", [1], ROTATE_FLAGS, ror, false),
  ...shiftPair("RCL", [2], CARRY_ROTATE_FLAGS, rotateWithCarry(false), false),
  ...shiftPair("RCR", [3], CARRY_ROTATE_FLAGS, rotateWithCarry(true), false),
  ...shiftPair("SHL", [4, 6], SHIFT_FLAGS, shl, true),
  ...shiftPair("SHR", [5], SHIFT_FLAGS, shr, true),
  ...shiftPair("SAR", [7], SHIFT_FLAGS, sar, true),
  {
    name: "SHLD",
    rows: ["0F A4 /r: Ev, Gv, Ib", "0F A5 /r: Ev, Gv, CL"],
    ...SHIFT_FLAGS.many,
    semantics: double(true),
  },
  {
    name: "SHRD",
    rows: ["0F AC /r: Ev, Gv, Ib", "0F AD /r: Ev, Gv, CL"],
    ...SHIFT_FLAGS.many,
    semantics: double(false),
  },
];
