// Data transfer (Intel SDM Vol. 1 8.3.2, 8.3.3; Vol. 2A FLD to FXCH).

import { i64, type Operand, select, type Val } from "../../wasm/value.ts";
import { helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { FloatStack, Sem } from "../semantics.ts";
import { ROUND } from "../softfloat/rounding.ts";
import { FCW } from "../state.ts";
import { x87FromBcd, x87ToBcd } from "./bcd.ts";
import { BIAS, KIND, QUIET_BIT, roundingMode, x87Kind, x87ToDouble, x87ToInteger, x87ToSingle } from "./format.ts";
import { begin, onInteger, onRegisters, realOperand, stackIndex } from "./operands.ts";
import { FLAGS_SHIFT } from "./quick.ts";
import { integerMode, widenReal, x87NarrowDouble, x87NarrowInteger, x87NarrowSingle } from "./quick-format.ts";
import {
  empty,
  filled,
  INDEFINITE_SE,
  INDEFINITE_SIG,
  moveTop,
  note,
  pop,
  popMany,
  readStack,
  report,
  STACK_UNDERFLOW,
  STATUS,
  useX87,
  writeStack,
  x87Push,
  x87Stored,
} from "./state.ts";

/** (sig, se, flags): pushes what was loaded from a narrower format: a signalling NaN becomes quiet. */
const x87PushReal = helper("x87PushReal", ["i64", "i32", "i32"], [], (x, sig, se, flags) => {
  const { c } = x;
  c.if(
    x.call(x87Kind, sig, se).eq(KIND.SNAN),
    () => x.invoke(x87Push, sig.or(QUIET_BIT), se, STATUS.IE),
    () => x.invoke(x87Push, sig, se, flags),
  );
  x.done();
});

/** (index): FLD ST(i). */
const x87Duplicate = helper("x87Duplicate", ["i32"], [], (x, index) => {
  const { c } = x;
  c.if(
    filled(x, index),
    () => {
      const { sig, se } = readStack(x, index);
      x.invoke(x87Push, sig, se, 0);
    },
    () => {
      // An underflow even where the stack is also full.
      const unmasked = report(x, STACK_UNDERFLOW);
      c.if(unmasked.eqz(), () => {
        moveTop(x, 7);
        writeStack(x, 0, INDEFINITE_SIG, INDEFINITE_SE);
      });
    },
    "likely",
  );
  x.done();
});

/** (index, pops): FST ST(i). */
const x87Copy = helper("x87Copy", ["i32", "i32"], [], (x, index, pops) => {
  const { c } = x;
  const isEmpty = c.let(empty(x, 0));
  const unmasked = report(x, isEmpty.mul(STACK_UNDERFLOW));
  c.if(unmasked.eqz(), () => {
    const { sig, se } = readStack(x, 0);
    writeStack(x, index, select(isEmpty, INDEFINITE_SIG, sig), select(isEmpty, INDEFINITE_SE, se));
    popMany(x, pops);
  });
  x.done();
});

/** (index): FSTPNCE, which the manual leaves out: FSTP that takes an empty register without complaint, and moves nothing then. */
const x87CopyUnchecked = helper("x87CopyUnchecked", ["i32"], [], (x, index) => {
  report(x, 0);
  x.c.if(filled(x, 0), () => {
    const { sig, se } = readStack(x, 0);
    writeStack(x, index, sig, se);
  });
  pop(x);
  x.done();
});

/** (index): FXCH. An empty register counts as holding the default NaN. */
const x87Exchange = helper("x87Exchange", ["i32"], [], (x, index) => {
  const { c } = x;
  const emptyA = c.let(empty(x, 0));
  const emptyB = c.let(empty(x, index));
  const unmasked = report(x, emptyA.or(emptyB).mul(STACK_UNDERFLOW));
  c.if(unmasked.eqz(), () => {
    const a = readStack(x, 0);
    const b = readStack(x, index);
    writeStack(x, 0, select(emptyB, INDEFINITE_SIG, b.sig), select(emptyB, INDEFINITE_SE, b.se));
    writeStack(x, index, select(emptyA, INDEFINITE_SIG, a.sig), select(emptyA, INDEFINITE_SE, a.se));
  });
  x.done();
});

/** (index, condition): FCMOVcc. Both registers must hold something even where nothing is moved. C1 changes with a stack underflow only. */
const x87Move = helper("x87Move", ["i32", "i32"], [], (x, index, condition) => {
  const { c } = x;
  const isEmpty = c.let(empty(x, 0).or(empty(x, index)));
  c.if(
    isEmpty,
    () => {
      const unmasked = report(x, STACK_UNDERFLOW);
      c.if(unmasked.eqz(), () => writeStack(x, 0, INDEFINITE_SIG, INDEFINITE_SE));
      x.done();
    },
    undefined,
    "unlikely",
  );
  c.if(condition, () => {
    const { sig, se } = readStack(x, index);
    writeStack(x, 0, sig, se);
  });
  x.done();
});

/** Constants by ModRM byte: significand rounded to nearest, exponent, and which rounding modes give the neighbour below. */
interface Constant {
  readonly name: string;
  readonly modrm: number;
  readonly sig: bigint;
  readonly exponent: number;
  /** 1: the exact value lies above the significand (so rounding up adds one), -1: below, 0: exact. */
  readonly error: -1 | 0 | 1;
}

const CONSTANTS: readonly Constant[] = [
  { name: "FLD1", modrm: 0xe8, sig: 1n << 63n, exponent: 0, error: 0 },
  { name: "FLDL2T", modrm: 0xe9, sig: 0xd49a784bcd1b8afen, exponent: 1, error: 1 },
  { name: "FLDL2E", modrm: 0xea, sig: 0xb8aa3b295c17f0bcn, exponent: 0, error: -1 },
  { name: "FLDPI", modrm: 0xeb, sig: 0xc90fdaa22168c235n, exponent: 1, error: -1 },
  { name: "FLDLG2", modrm: 0xec, sig: 0x9a209a84fbcff799n, exponent: -2, error: -1 },
  { name: "FLDLN2", modrm: 0xed, sig: 0xb17217f7d1cf79acn, exponent: -1, error: -1 },
];

/** The constant in the present rounding mode (SDM Vol. 2A FLD1...: the internal 66-bit constant is rounded). */
function constantSignificand(x: Sem, { sig, error }: Constant): Val {
  if (error === 0) return i64(sig);
  const mode = x.c.let(roundingMode(x));
  if (error > 0) return select(mode.eq(ROUND.UP), i64(sig + 1n), i64(sig));
  return select(mode.and(1), i64(sig - 1n), i64(sig));
}

/** A page fault goes before a numeric exception that keeps the value from being stored (SDM Vol. 3A Table 6-2). */
function probeOperand(x: Sem): void {
  const bits = x.bits(0) as 16 | 32 | 64;
  x.probeWrite(bits, x.addressAt(0, 0, bits / 8, true));
}

function storeReal(x: Sem, pops: number): void {
  const single = x.bits(0) === 32;
  x.usually(
    () => {},
    (stack) => {
      const { sig, se } = stack.read(0);
      const [bits, flags] = x.callMany(single ? x87NarrowSingle : x87NarrowDouble, sig, se);
      stack.unless(flags.ltS(0));
      x.write(0, single ? bits.wrap() : bits);
      stack.note(x.address(0));
      stack.report(flags);
      if (pops !== 0) stack.pop();
    },
    () => {
      const { sig, se } = readStack(x, 0);
      const [bits, flags, stored] = x.callMany(single ? x87ToSingle : x87ToDouble, filled(x, 0), sig, se);
      x.c.if(
        stored,
        () => x.write(0, single ? bits.wrap() : bits),
        () => probeOperand(x),
        "likely",
      );
      note(x, x.address(0));
      x.invoke(x87Stored, flags, stored, pops);
    },
  );
}

function storeInteger(x: Sem, pops: number, truncates: boolean): void {
  const width = x.bits(0);
  const narrow = (value: Val): Val => (width === 64 ? value : width === 32 ? value.wrap() : value.wrap().and(0xffff));
  x.usually(
    () => {},
    (stack) => {
      const { sig, se } = stack.read(0);
      const [value, flags] = x.callMany(x87NarrowInteger, sig, se, width, integerMode(x, truncates));
      stack.unless(flags.ltS(0));
      x.write(0, narrow(value));
      stack.note(x.address(0));
      stack.report(flags);
      if (pops !== 0) stack.pop();
    },
    () => {
      const { sig, se } = readStack(x, 0);
      const mode = integerMode(x, truncates);
      const [value, flags, stored] = x.callMany(x87ToInteger, filled(x, 0), sig, se, width, mode);
      x.c.if(
        stored,
        () => x.write(0, narrow(value)),
        () => probeOperand(x),
        "likely",
      );
      note(x, x.address(0));
      x.invoke(x87Stored, flags, stored, pops);
    },
  );
}

/** A push in the usual course. */
function pushQuickly(stack: FloatStack, sig: Operand, se: Operand, flags: Operand, linear?: Val): void {
  stack.room();
  stack.note(linear);
  stack.report(flags);
  stack.push(sig, se);
}

/** FST and FSTP with a register. */
function copy(x: Sem, pops: number): void {
  const index = stackIndex(x);
  onRegisters(
    x,
    (stack) => {
      const { sig, se } = stack.read(0);
      stack.note();
      stack.report(0);
      stack.write(index, sig, se);
      if (pops !== 0) stack.pop();
    },
    () => x.invoke(x87Copy, index, pops),
  );
}

/** Ten bytes are checked in full before the first is written; gives what writes them. */
function probeTen(x: Sem): (low: Val, high: Val) => void {
  const first = x.addressAt(0, 0, 8, true);
  const second = x.addressAt(0, 8, 2, true);
  x.probeWrite(64, first);
  x.probeWrite(16, second);
  return (low, high) => {
    x.store(64, first, low);
    x.store(16, second, high);
  };
}

function loadTen(x: Sem): [low: Val, high: Val] {
  return [x.load(64, x.addressAt(0, 0, 8)), x.load(16, x.addressAt(0, 8, 2))];
}

function storeTenUnusual(x: Sem): void {
  const { c } = x;
  const isEmpty = c.let(empty(x, 0));
  const flags = c.let(isEmpty.mul(STACK_UNDERFLOW));
  const stored = c.let(isEmpty.and(x.get(FCW).and(STATUS.IE).xor(1)).xor(1));
  const { sig, se } = readStack(x, 0);
  const low = c.let(select(isEmpty, INDEFINITE_SIG, sig));
  const high = c.let(select(isEmpty, INDEFINITE_SE, se));
  const write = probeTen(x);
  c.if(stored, () => write(low, high), undefined, "likely");
  note(x, x.address(0));
  x.invoke(x87Stored, flags, stored, 1);
}

/** FCMOVcc by the escape byte and ModRM.reg: condition codes of Jcc. */
const MOVES: readonly (readonly [name: string, row: string, cc: number, reads: string])[] = [
  ["FCMOVB", "DA C0+i: Nq", 2, "C"],
  ["FCMOVE", "DA C8+i: Nq", 4, "Z"],
  ["FCMOVBE", "DA D0+i: Nq", 6, "CZ"],
  ["FCMOVU", "DA D8+i: Nq", 10, "P"],
  ["FCMOVNB", "DB C0+i: Nq", 3, "C"],
  ["FCMOVNE", "DB C8+i: Nq", 5, "Z"],
  ["FCMOVNBE", "DB D0+i: Nq", 7, "CZ"],
  ["FCMOVNU", "DB D8+i: Nq", 11, "P"],
];

const constants = CONSTANTS.map(
  (constant): Instruction => ({
    name: constant.name,
    rows: [`D9 ${constant.modrm.toString(16).toUpperCase()}`],
    semantics: (x) => {
      const se = constant.exponent + BIAS;
      onRegisters(
        x,
        (stack) => pushQuickly(stack, constantSignificand(x, constant), se, 0),
        () => x.invoke(x87Push, constantSignificand(x, constant), se, 0),
      );
    },
  }),
);

const conditionalMoves = MOVES.map(
  ([name, row, cc, reads]): Instruction => ({
    name,
    rows: [row],
    feature: "cmov",
    reads,
    semantics: (x) => {
      const index = stackIndex(x);
      onRegisters(
        x,
        (stack) => {
          const a = stack.read(0);
          const b = stack.read(index);
          const condition = x.c.let(x.condition(cc));
          stack.note();
          stack.write(0, select(condition, b.sig, a.sig), select(condition, b.se, a.se));
        },
        () => x.invoke(x87Move, index, x.condition(cc)),
      );
    },
  }),
);

export const X87_LOAD_STORE: InstructionGroup = [
  {
    name: "FLD",
    rows: ["D9 /0: Md", "DD /0: Mq"],
    semantics: (x) =>
      x.usually(
        () => x.read(0),
        (stack, bits) => {
          const { sig, se } = widenReal(x, bits);
          stack.unless(se.ltS(0));
          pushQuickly(stack, sig, se.and(0xffff), se.shrU(FLAGS_SHIFT), x.address(0));
        },
        (bits) => {
          const { sig, se, flags } = realOperand(x, bits);
          x.invoke(x87PushReal, sig, se, flags);
        },
      ),
  },
  {
    name: "FLD",
    rows: ["DB /5: M"],
    semantics: (x) =>
      x.usually(
        () => loadTen(x),
        (stack, [low, high]) => pushQuickly(stack, low, high, 0, x.address(0)),
        ([low, high]) => {
          note(x, x.address(0));
          x.invoke(x87Push, low, high, 0);
        },
      ),
  },
  {
    name: "FLD",
    rows: ["D9 C0+i: Nq"],
    semantics: (x) => {
      const index = stackIndex(x);
      onRegisters(
        x,
        (stack) => {
          const { sig, se } = stack.read(index);
          pushQuickly(stack, sig, se, 0);
        },
        () => x.invoke(x87Duplicate, index),
      );
    },
  },
  { name: "FST", rows: ["D9 /2: Md", "DD /2: Mq"], semantics: (x) => storeReal(x, 0) },
  { name: "FSTP", rows: ["D9 /3: Md", "DD /3: Mq"], semantics: (x) => storeReal(x, 1) },
  {
    name: "FSTP",
    rows: ["DB /7: M"],
    semantics: (x) =>
      x.usually(
        () => {},
        (stack) => {
          const { sig, se } = stack.read(0);
          probeTen(x)(sig, se);
          stack.note(x.address(0));
          stack.report(0);
          stack.pop();
        },
        () => storeTenUnusual(x),
      ),
  },
  {
    name: "FST",
    rows: ["DD D0+i: Nq"],
    semantics: (x) => copy(x, 0),
  },
  {
    name: "FSTP",
    rows: ["DD D8+i: Nq", "DF D0+i: Nq", "DF D8+i: Nq"],
    semantics: (x) => copy(x, 1),
  },
  {
    name: "FSTPNCE",
    rows: ["D9 D8+i: Nq"],
    semantics: (x) => {
      begin(x);
      x.invoke(x87CopyUnchecked, stackIndex(x));
    },
  },
  {
    name: "FILD",
    rows: ["DF /0: Mw", "DB /0: Md", "DF /5: Mq"],
    semantics: (x) =>
      onInteger(
        x,
        (stack, { sig, se }) => pushQuickly(stack, sig, se, 0, x.address(0)),
        ({ sig, se }) => x.invoke(x87Push, sig, se, 0),
      ),
  },
  { name: "FIST", rows: ["DF /2: Mw", "DB /2: Md"], semantics: (x) => storeInteger(x, 0, false) },
  {
    name: "FISTP",
    rows: ["DF /3: Mw", "DB /3: Md", "DF /7: Mq"],
    semantics: (x) => storeInteger(x, 1, false),
  },
  {
    name: "FISTTP",
    rows: ["DF /1: Mw", "DB /1: Md", "DD /1: Mq"],
    feature: "sse3",
    semantics: (x) => storeInteger(x, 1, true),
  },
  {
    name: "FBLD",
    rows: ["DF /4: M"],
    semantics: (x) => {
      useX87(x);
      const [low, high] = loadTen(x);
      note(x, x.address(0));
      const [sig, se] = x.callMany(x87FromBcd, low, high);
      x.invoke(x87Push, sig, se, 0);
    },
  },
  {
    name: "FBSTP",
    rows: ["DF /6: M"],
    semantics: (x) => {
      useX87(x);
      const { sig, se } = readStack(x, 0);
      const [low, high, flags, stored] = x.callMany(x87ToBcd, filled(x, 0), sig, se);
      const write = probeTen(x);
      x.c.if(stored, () => write(low, high), undefined, "likely");
      note(x, x.address(0));
      x.invoke(x87Stored, flags, stored, 1);
    },
  },
  {
    name: "FXCH",
    rows: ["D9 C8+i: Nq", "DD C8+i: Nq", "DF C8+i: Nq"],
    semantics: (x) => {
      const index = stackIndex(x);
      onRegisters(
        x,
        (stack) => {
          const a = stack.read(0);
          const b = stack.read(index);
          stack.note();
          stack.report(0);
          stack.write(0, b.sig, b.se);
          stack.write(index, a.sig, a.se);
        },
        () => x.invoke(x87Exchange, index),
      );
    },
  },
  ...conditionalMoves,
  ...constants,
  {
    name: "FLDZ",
    rows: ["D9 EE"],
    semantics: (x) => {
      onRegisters(
        x,
        (stack) => pushQuickly(stack, 0, 0, 0),
        () => x.invoke(x87Push, 0, 0, 0),
      );
    },
  },
];
