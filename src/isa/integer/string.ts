// String instructions (SDM Vol. 2A-2B: CMPS, LODS, MOVS, SCAS, STOS; REP in Vol. 2B). Registers change after each round, so that a fault or
// an interrupt finds exact state and the instruction can go on; after a number of rounds it is restarted to let interrupts in.

import { i64, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Bits, Env, Sem } from "../semantics.ts";
import { FLAG, GPR, RFLAGS, SREG } from "../state.ts";
import {
  countDown,
  repeatCount,
  roundBudget,
  type StringRound,
  stepIndex,
  stringAddress,
  stringRound,
} from "./string-access.ts";
import { MOVE_BULK, STORE_BULK } from "./string-bulk.ts";
import { COMPARE_BULK, SCAN_BULK } from "./string-scan.ts";

/** How an instruction repeats: not, REP or REPE (F3), REPNE (F2). */
const REPEAT = { NONE: 0, EQUAL: 1, NOT_EQUAL: 2 } as const;
type Repeat = (typeof REPEAT)[keyof typeof REPEAT];

/** Rounds in one execution: of pages or single elements where there is a bulk path, else of elements. */
const BULK_ROUNDS = 16;
const SINGLE_ROUNDS = 256;

interface Round {
  readonly x: Env;
  readonly bits: Bits;
  readonly round: StringRound;
  readonly segment: Val;
}

interface Kind {
  readonly name: string;
  /** The opcode of the byte form; the next one is that of the wider forms. */
  readonly opcode: number;
}

interface Mover extends Kind {
  /** One element, registers stepped. */
  readonly one: (at: Round) => void;
  /** Several elements at once; gives how many (i64). */
  readonly bulk?: (at: Round, wanted: Val) => Val;
}

interface Comparison extends Kind {
  /** One element, registers stepped; gives the two values, whose flags are set when the instruction ends. */
  readonly compare: (at: Round) => readonly [Val, Val];
  /** Passes over elements behind which the repetition goes on, at most `wanted`; gives how many (i64). */
  readonly pass: (at: Round, wanted: Val, stopsOnEqual: Val) => Val;
}

function moveOne({ x, bits, round, segment }: Round): void {
  const value = x.load(bits, stringAddress(x, round, segment, GPR.RSI, false));
  x.store(bits, stringAddress(x, round, SREG.ES, GPR.RDI, true), value);
  stepIndex(x, round, GPR.RSI);
  stepIndex(x, round, GPR.RDI);
}

function storeOne({ x, bits, round }: Round): void {
  x.store(bits, stringAddress(x, round, SREG.ES, GPR.RDI, true), x.gpr(GPR.RAX, bits));
  stepIndex(x, round, GPR.RDI);
}

function loadOne({ x, bits, round, segment }: Round): void {
  x.setGpr(GPR.RAX, bits, x.load(bits, stringAddress(x, round, segment, GPR.RSI, false)));
  stepIndex(x, round, GPR.RSI);
}

function scanOne({ x, bits, round }: Round): readonly [Val, Val] {
  const value = x.load(bits, stringAddress(x, round, SREG.ES, GPR.RDI, false));
  stepIndex(x, round, GPR.RDI);
  return [x.c.let(x.gpr(GPR.RAX, bits)), value];
}

function compareOne({ x, bits, round, segment }: Round): readonly [Val, Val] {
  // The manual leaves the order of the two open; where both fault this is the one that processors report.
  const second = x.load(bits, stringAddress(x, round, SREG.ES, GPR.RDI, false));
  const first = x.load(bits, stringAddress(x, round, segment, GPR.RSI, false));
  stepIndex(x, round, GPR.RSI);
  stepIndex(x, round, GPR.RDI);
  return [first, second];
}

const KINDS: readonly (Mover | Comparison)[] = [
  {
    name: "MOVS",
    opcode: 0xa4,
    one: moveOne,
    bulk: ({ x, bits, round, segment }, wanted) => x.call(MOVE_BULK[bits], segment, round.size, wanted),
  },
  {
    name: "CMPS",
    opcode: 0xa6,
    compare: compareOne,
    pass: ({ x, bits, round, segment }, wanted, stopsOnEqual) =>
      x.call(COMPARE_BULK[bits], segment, round.size, wanted, stopsOnEqual),
  },
  {
    name: "STOS",
    opcode: 0xaa,
    one: storeOne,
    bulk: ({ x, bits, round }, wanted) => x.call(STORE_BULK[bits], round.size, wanted),
  },
  { name: "LODS", opcode: 0xac, one: loadOne },
  {
    name: "SCAS",
    opcode: 0xae,
    compare: scanOne,
    pass: ({ x, bits, round }, wanted, stopsOnEqual) => x.call(SCAN_BULK[bits], round.size, wanted, stopsOnEqual),
  },
];

function setFlags({ x, bits }: Round, [a, b]: readonly [Val, Val]): void {
  x.flagsSub(bits, a, b, x.c.let(a.sub(b)));
}

/** One element, without a count: (segment, address size). */
function singleHelper(kind: Mover | Comparison, bits: Bits): Helper {
  return faultingHelper(`${kind.name.toLowerCase()}${bits}`, ["i32", "i32"], [], (x, segment, size) => {
    const at = { x, bits, round: stringRound(x, size, bits / 8), segment };
    if ("compare" in kind) setFlags(at, kind.compare(at));
    else kind.one(at);
    x.done();
  });
}

/** As many elements as can be done at once, at least one. */
function moveRound(at: Round, kind: Mover): void {
  const { x, round } = at;
  if (kind.bulk === undefined) {
    kind.one(at);
    countDown(x, round, i64(1));
    return;
  }
  // Single-stepping traps after each round (SDM Vol. 3B 17.3.1.4).
  const wanted = select(x.get(RFLAGS).and(FLAG.TF), i64(1), repeatCount(x, round));
  const done = x.c.local("i64", kind.bulk(at, wanted));
  x.c.if(done.eqz(), () => {
    kind.one(at);
    x.c.set(done, 1);
  });
  countDown(x, round, done);
}

/** With a count: (segment, address size, REPEAT.EQUAL or REPEAT.NOT_EQUAL) -> 1 where rounds are left. A fault in a later round leaves the
 *  flags from before the instruction (SDM Vol. 2B REP), so they are set only when it ends or pauses. */
function repeatHelper(kind: Mover | Comparison, bits: Bits): Helper {
  return faultingHelper(`rep${kind.name}${bits}`, ["i32", "i32", "i32"], ["i32"], (x, segment, size, repeat) => {
    const { c } = x;
    const round = stringRound(x, size, bits / 8);
    const at = { x, bits, round, segment };
    const bulk = "bulk" in kind;
    const budget = c.local("i32", roundBudget(x, bulk ? BULK_ROUNDS : SINGLE_ROUNDS));
    c.if(repeatCount(x, round).eqz(), () => x.done(0));
    c.loop((head) => {
      let compared: readonly [Val, Val] | undefined;
      let last: Val;
      if ("compare" in kind) {
        const stopsOnEqual = c.let(repeat.ne(REPEAT.EQUAL));
        // Single-stepping traps after each round (SDM Vol. 3B 17.3.1.4).
        const wanted = select(x.get(RFLAGS).and(FLAG.TF), i64(0), repeatCount(x, round).sub(1));
        const passed = c.let(kind.pass(at, wanted, stopsOnEqual));
        // A fault at the first element leaves the whole of RCX, its upper half too where the count is ECX.
        c.if(passed.ne(0n), () => countDown(x, round, passed));
        compared = kind.compare(at);
        countDown(x, round, i64(1));
        const equal = compared[0].eq(compared[1]);
        const stop = equal.eq(stopsOnEqual);
        last = c.let(repeatCount(x, round).eqz().or(stop));
      } else {
        moveRound(at, kind);
        last = repeatCount(x, round).eqz();
      }
      c.set(budget, budget.sub(1));
      c.brIf(head, last.eqz().and(budget.ne(0)));
      if (compared !== undefined) setFlags(at, compared);
      x.done(last.eqz());
    });
    c.unreachable();
  });
}

function byWidth(make: (bits: Bits) => Helper): { readonly [bits in Bits]: Helper } {
  return { 8: make(8), 16: make(16), 32: make(32), 64: make(64) };
}

function hex(value: number): string {
  return value.toString(16).toUpperCase();
}

/** The six encodings of one kind: bytes and wider, without a count and with either prefix. */
function encodings(kind: Mover | Comparison): Instruction[] {
  const single = byWidth((bits) => singleHelper(kind, bits));
  const repeated = byWidth((bits) => repeatHelper(kind, bits));
  const compares = "compare" in kind;
  const flags = compares ? { writes: "OSZAPC" } : {};
  const make = (wide: boolean, prefixes: readonly string[], repeat: Repeat, name: string): Instruction => ({
    name: `${name}${kind.name}${wide ? "" : "B"}`,
    rows: prefixes.map((prefix) => `${prefix}${hex(kind.opcode + (wide ? 1 : 0))} ; string`),
    ...flags,
    // A count of zero changes no flag.
    ...(compares && repeat !== REPEAT.NONE ? { reads: "OSZAPC" } : {}),
    semantics: (x: Sem) => {
      const bits = wide ? x.opsize : 8;
      if (repeat === REPEAT.NONE) {
        x.invoke(single[bits], x.segmentNumber(), x.addressSize());
        return;
      }
      const more = x.call(repeated[bits], x.segmentNumber(), x.addressSize(), repeat);
      x.c.if(more, () => x.restart());
    },
  });
  return [false, true].flatMap((wide) => [
    make(wide, [""], REPEAT.NONE, ""),
    ...(compares
      ? [make(wide, ["F3 "], REPEAT.EQUAL, "REPE "), make(wide, ["F2 "], REPEAT.NOT_EQUAL, "REPNE ")]
      : [make(wide, ["F3 ", "F2 "], REPEAT.EQUAL, "REP ")]),
  ]);
}

export const STRING: InstructionGroup = KINDS.flatMap(encodings);
