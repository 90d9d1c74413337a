// Two's complement arithmetic and logic (SDM Vol. 2A-2D by name; the encodings' pattern in Vol. 2D A.3).

import { constantOf, type Val } from "../../wasm/value.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { AtomicUpdate, Bits, Sem } from "../semantics.ts";

const ALL_FLAGS = "OSZAPC";

function hex(value: number): string {
  return value.toString(16).toUpperCase().padStart(2, "0");
}

/** The rows of one of the eight operations whose opcodes lie 8 apart, digit `k` in group 1. */
function groupOneRows(k: number): readonly string[] {
  const base = 8 * k;
  return [
    `${hex(base)} /r: Eb, Gb`,
    `${hex(base + 1)} /r: Ev, Gv`,
    `${hex(base + 2)} /r: Gb, Eb`,
    `${hex(base + 3)} /r: Gv, Ev`,
    `${hex(base + 4)}: AL, Ib`,
    `${hex(base + 5)}: rAX, Iz`,
    `80 /${k}: Eb, Ib`,
    `81 /${k}: Ev, Iz`,
    `82 /${k}: Eb, Ib ; i64`,
    `83 /${k}: Ev, sIb`,
  ];
}

function width(x: Sem, n: number): Bits {
  return x.bits(n) as Bits;
}

/** Destination and source in, result out, flags set on the way. */
type Operation = (x: Sem, bits: Bits, a: Val, b: Val) => Val;

function add(x: Sem, bits: Bits, a: Val, b: Val): Val {
  const r = x.c.let(a.add(b));
  x.flagsAdd(bits, a, b, r);
  return r;
}

function sub(x: Sem, bits: Bits, a: Val, b: Val): Val {
  const r = x.c.let(a.sub(b));
  x.flagsSub(bits, a, b, r);
  return r;
}

function carryIn(x: Sem, bits: Bits): { carry: Val; wide: Val } {
  const carry = x.c.let(x.carry());
  return { carry, wide: bits === 64 ? carry.zx() : carry };
}

function adc(x: Sem, bits: Bits, a: Val, b: Val): Val {
  const { carry, wide } = carryIn(x, bits);
  const r = x.c.let(a.add(b).add(wide));
  x.flagsAdc(bits, a, b, carry, r);
  return r;
}

function sbb(x: Sem, bits: Bits, a: Val, b: Val): Val {
  const { carry, wide } = carryIn(x, bits);
  const r = x.c.let(a.sub(b).sub(wide));
  x.flagsSbb(bits, a, b, carry, r);
  return r;
}

function logic(name: "and" | "or" | "xor"): Operation {
  return (x, bits, a, b) => {
    const r = x.c.let(a[name](b));
    x.flagsLogic(bits, r);
    return r;
  };
}

/** What the operation is to memory, from the source. */
type Atomic = (x: Sem, bits: Bits, source: Val) => AtomicUpdate;

const atomically =
  (op: "add" | "sub" | "and" | "or" | "xor"): Atomic =>
  (_x, _bits, operand) => ({ op, operand });

/** The source and the carry that goes with it. */
const withCarry =
  (op: "add" | "sub"): Atomic =>
  (x, bits, source) => ({ op, operand: x.c.let(source.add(carryIn(x, bits).wide)) });

function binary(
  name: string,
  k: number,
  operation: Operation,
  atomic: Atomic,
  flags: Partial<Instruction>,
): Instruction {
  return {
    name,
    rows: groupOneRows(k),
    lock: true,
    hot: true,
    ...flags,
    semantics: (x) => {
      const source = x.read(1);
      const bits = width(x, 0);
      x.modify(
        0,
        (old) => operation(x, bits, x.c.let(old), source),
        () => atomic(x, bits, source),
      );
    },
  };
}

const ARITHMETIC = { writes: ALL_FLAGS };
const WITH_CARRY = { reads: "C", writes: ALL_FLAGS };
const LOGIC = { writes: "OSZPC", undefined: "A" };

/** An operation on one operand that gives the new value. */
function unary(
  name: string,
  rows: readonly string[],
  flags: Partial<Instruction>,
  atomic: (zero: Val) => AtomicUpdate,
  operation: (x: Sem, bits: Bits, a: Val) => Val,
): Instruction {
  return {
    name,
    rows,
    lock: true,
    hot: true,
    ...flags,
    semantics: (x) => {
      const bits = width(x, 0);
      x.modify(
        0,
        (old) => operation(x, bits, x.c.let(old)),
        () => atomic(constantOf(bits === 64 ? "i64" : "i32", 0)),
      );
    },
  };
}

const one =
  (op: "add" | "sub") =>
  (zero: Val): AtomicUpdate => ({ op, operand: zero.add(1) });

export const ALU: InstructionGroup = [
  binary("ADD", 0, add, atomically("add"), ARITHMETIC),
  binary("OR", 1, logic("or"), atomically("or"), LOGIC),
  binary("ADC", 2, adc, withCarry("add"), WITH_CARRY),
  binary("SBB", 3, sbb, withCarry("sub"), WITH_CARRY),
  binary("AND", 4, logic("and"), atomically("and"), LOGIC),
  binary("SUB", 5, sub, atomically("sub"), ARITHMETIC),
  binary("XOR", 6, logic("xor"), atomically("xor"), LOGIC),
  {
    name: "CMP",
    rows: groupOneRows(7),
    writes: ALL_FLAGS,
    hot: true,
    semantics: (x) => {
      const a = x.read(0);
      const b = x.read(1);
      sub(x, width(x, 0), a, b);
    },
  },
  {
    name: "TEST",
    rows: [
      "84 /r: Eb, Gb",
      "85 /r: Ev, Gv",
      "A8: AL, Ib",
      "A9: rAX, Iz",
      "F6 /0: Eb, Ib",
      "F6 /1: Eb, Ib",
      "F7 /0: Ev, Iz",
      "F7 /1: Ev, Iz",
    ],
    ...LOGIC,
    hot: true,
    semantics: (x) => {
      const a = x.read(0);
      x.flagsLogic(width(x, 0), x.c.let(a.and(x.read(1))));
    },
  },
  unary("INC", ["FE /0: Eb", "FF /0: Ev", "40+r: Zv ; i64"], { writes: "OSZAP" }, one("add"), (x, bits, a) => {
    const r = x.c.let(a.add(1));
    x.flagsInc(bits, a, r);
    return r;
  }),
  unary("DEC", ["FE /1: Eb", "FF /1: Ev", "48+r: Zv ; i64"], { writes: "OSZAP" }, one("sub"), (x, bits, a) => {
    const r = x.c.let(a.sub(1));
    x.flagsDec(bits, a, r);
    return r;
  }),
  unary(
    "NOT",
    ["F6 /2: Eb", "F7 /2: Ev"],
    {},
    (zero) => ({ op: "xor", operand: zero.not() }),
    (_x, _bits, a) => a.not(),
  ),
  unary(
    "NEG",
    ["F6 /3: Eb", "F7 /3: Ev"],
    ARITHMETIC,
    () => ({ op: "neg" }),
    (x, bits, a) => sub(x, bits, constantOf(a.type, 0), a),
  ),
];
