// Bit tests, scans and counts, and the compare-and-exchange family
// (SDM Vol. 2A-2D: BT, BTC, BTR, BTS, BSF, BSR, POPCNT, CMPXCHG, CMPXCHG8B/16B, XADD; bit strings in Vol. 1 3.7 and Vol. 2A 3.1.1.9).

import { constantOf, laneOp, op, select, type Val } from "../../wasm/value.ts";
import { exchange16 } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { AtomicUpdate, Bits, Sem } from "../semantics.ts";
import { FLAG, GPR, VECTOR } from "../state.ts";

/** The bit's effect on the operand: nothing for BT. */
type Change = { readonly op: "and" | "or" | "xor"; readonly operand: (mask: Val) => Val } | undefined;

/** A bit by immediate, or by register within a register operand: the number counts modulo the operand size. A register offset into memory
 *  is signed and selects the word of the bit string as well. */
function bitTest(change: Change, byRegister: boolean): (x: Sem) => void {
  return (x) => {
    const { c } = x;
    const bits = x.bits(0) as Bits;
    const offset = x.read(1);
    const number = c.let(bits === 64 ? offset.zx().and(63) : offset.and(bits - 1));
    const alter = (old: Val): Val => {
      const value = c.let(old);
      x.setCarry(c.let(value.shrU(number).and(1).wrap()));
      return change === undefined ? value : value[change.op](change.operand(constantOne(bits).shl(number)));
    };
    const atomic = (op: "and" | "or" | "xor", operand: (mask: Val) => Val): AtomicUpdate => ({
      op,
      operand: operand(constantOne(bits).shl(number)),
    });
    if (byRegister && x.isMemory(0)) {
      const signed = bits === 16 ? offset.extend(16) : offset;
      const words = signed.sx().shrS(Math.log2(bits));
      const linear = c.let(x.addressAt(0, words.mul(bits / 8), bits / 8, change !== undefined));
      if (change === undefined) alter(x.load(bits, linear));
      else x.modifyAt(bits, linear, alter, () => atomic(change.op, change.operand));
    } else if (change === undefined) alter(x.read(0));
    else x.modify(0, alter, () => atomic(change.op, change.operand));
  };
}

function constantOne(bits: Bits): Val {
  return constantOf(bits === 64 ? "i64" : "i32", 1);
}

function bitTestPair(name: string, opcode: string, digit: number, change: Change): InstructionGroup {
  const flags = { writes: "C", undefined: "OSAP", lock: change !== undefined };
  return [
    { name, rows: [`0F ${opcode} /r: Ev, Gv`], ...flags, semantics: bitTest(change, true) },
    { name, rows: [`0F BA /${digit}: Ev, Ib`], ...flags, semantics: bitTest(change, false) },
  ];
}

/** BSF and BSR: a source of zero sets ZF and leaves the destination as it was, all 64 bits of it. */
function scan(position: (bits: Bits, source: Val) => Val): (x: Sem) => void {
  return (x) => {
    const bits = x.bits(0) as Bits;
    const source = x.c.let(x.read(1));
    const zero = constantOf(source.type, 0);
    x.c.if(source.ne(zero), () => x.write(0, position(bits, source)));
    x.flagsLogic(bits, source);
  };
}

/** CMPXCHG: a memory destination is written in either case, a register only where they are equal (a 32-bit one keeps its upper half). */
function compareExchange(x: Sem): void {
  const { c } = x;
  const bits = x.bits(0) as Bits;
  const source = x.read(1);
  const accumulator = c.let(x.gpr(GPR.RAX, bits));
  const compare = (found: Val): void => x.flagsSub(bits, accumulator, found, c.let(accumulator.sub(found)));
  if (!x.isMemory(0)) {
    const found = x.read(0);
    compare(found);
    c.if(
      found.eq(accumulator),
      () => x.write(0, source),
      () => x.setGpr(GPR.RAX, bits, found),
    );
    return;
  }
  const found = c.local(source.type);
  const equal = c.local("i32");
  x.modify(
    0,
    (old) => {
      c.set(found, old);
      c.set(equal, found.eq(accumulator));
      compare(found);
      return select(equal, source, found);
    },
    () => ({ op: "cmpxchg", operand: source, expected: accumulator }),
  );
  c.if(equal.eqz(), () => x.setGpr(GPR.RAX, bits, found));
}

/** CMPXCHG8B compares EDX:EAX and stores ECX:EBX. */
function compareExchange8(x: Sem): void {
  const { c } = x;
  const pair = (high: number, low: number): Val => c.let(x.gpr(high, 32).zx().shl(32).or(x.gpr(low, 32).zx()));
  const expected = pair(GPR.RDX, GPR.RAX);
  const replacement = pair(GPR.RCX, GPR.RBX);
  const found = c.local("i64");
  const equal = c.local("i32");
  x.modifyAt(
    64,
    c.let(x.addressAt(0, 0n, 8, true)),
    (old) => {
      c.set(found, old);
      c.set(equal, found.eq(expected));
      x.setSomeFlags(FLAG.ZF, equal.shl(6));
      return select(equal, replacement, found);
    },
    () => ({ op: "cmpxchg", operand: replacement, expected }),
  );
  c.if(equal.eqz(), () => {
    x.setGpr(GPR.RAX, 32, found.wrap());
    x.setGpr(GPR.RDX, 32, found.shrU(32).wrap());
  });
}

/** CMPXCHG16B compares RDX:RAX and stores RCX:RBX; its operand must be aligned. */
function compareExchange16(x: Sem): void {
  const { c } = x;
  const linear = c.let(x.addressAt(0, 0n, 16, true));
  x.raiseIf(linear.wrap().and(15), VECTOR.GP, 0);
  const low = c.local("i64");
  const high = c.local("i64");
  const isEqual = (): Val => low.eq(x.gpr(GPR.RAX, 64)).and(high.eq(x.gpr(GPR.RDX, 64)));
  if (x.lock) {
    const registers = [GPR.RAX, GPR.RDX, GPR.RBX, GPR.RCX].map((number) => x.gpr(number, 64));
    const [foundLow, foundHigh] = x.callMany(exchange16, linear, ...registers);
    c.set(low, foundLow);
    c.set(high, foundHigh);
  } else {
    x.probeWrite(128, linear);
    const old = x.load(128, linear);
    c.set(low, laneOp("i64x2.extract_lane", [0], old));
    c.set(high, laneOp("i64x2.extract_lane", [1], old));
    const replacement = laneOp("i64x2.replace_lane", [1], op("i64x2.splat", x.gpr(GPR.RBX, 64)), x.gpr(GPR.RCX, 64));
    x.store(128, linear, c.let(select(isEqual(), replacement, old)));
  }
  const equal = c.let(isEqual());
  x.setSomeFlags(FLAG.ZF, equal.shl(6));
  c.if(equal.eqz(), () => {
    x.setGpr(GPR.RAX, 64, low);
    x.setGpr(GPR.RDX, 64, high);
  });
}

export const BITS: InstructionGroup = [
  ...bitTestPair("BT", "A3", 4, undefined),
  ...bitTestPair("BTS", "AB", 5, { op: "or", operand: (mask) => mask }),
  ...bitTestPair("BTR", "B3", 6, { op: "and", operand: (mask) => mask.not() }),
  ...bitTestPair("BTC", "BB", 7, { op: "xor", operand: (mask) => mask }),
  {
    name: "BSF",
    rows: ["0F BC /r: Gv, Ev"],
    writes: "Z",
    undefined: "OSAPC",
    semantics: scan((_bits, source) => source.ctz()),
  },
  {
    name: "BSR",
    rows: ["0F BD /r: Gv, Ev"],
    writes: "Z",
    undefined: "OSAPC",
    semantics: scan((bits, source) => source.clz().xor(constantOf(source.type, bits === 64 ? 63 : 31))),
  },
  {
    name: "POPCNT",
    rows: ["F3 0F B8 /r: Gv, Ev"],
    feature: "popcnt",
    writes: "OSZAPC",
    semantics: (x) => {
      const count = x.c.let(x.read(1).popcnt());
      x.write(0, count);
      x.setArithmeticFlags(x.c.let(count.eqz().shl(6)));
    },
  },
  {
    name: "CMPXCHG",
    rows: ["0F B0 /r: Eb, Gb", "0F B1 /r: Ev, Gv"],
    lock: true,
    writes: "OSZAPC",
    semantics: compareExchange,
  },
  {
    name: "XADD",
    rows: ["0F C0 /r: Eb, Gb", "0F C1 /r: Ev, Gv"],
    lock: true,
    writes: "OSZAPC",
    semantics: (x) => {
      const { c } = x;
      const bits = x.bits(0) as Bits;
      const source = x.read(1);
      x.modify(
        0,
        (old) => {
          const value = c.let(old);
          const sum = c.let(value.add(source));
          x.flagsAdd(bits, value, source, sum);
          x.write(1, value);
          return sum;
        },
        () => ({ op: "add", operand: source }),
      );
    },
  },
  {
    name: "CMPXCHG8B",
    rows: ["0F C7 /1: My"],
    lock: true,
    writes: "Z",
    semantics: (x) => {
      if (x.bits(0) === 64) compareExchange16(x);
      else compareExchange8(x);
    },
  },
];
