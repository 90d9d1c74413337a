// Comparison and classification instructions (Intel SDM Vol. 1 8.3.6; Vol. 2A FCOM, FCOMI, FICOM, FTST, FUCOM, FXAM).

import { i32, type Val } from "../../wasm/value.ts";
import type { Helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Sem } from "../semantics.ts";
import { x87CompareFlags, x87CompareMemory, x87CompareRegister, x87Examine } from "./compare.ts";
import { begin, beginWithInteger, beginWithReal, stackIndex } from "./operands.ts";

/** With a register by ModRM.rm, or ST(1). */
function withRegister(
  name: string,
  rows: readonly string[],
  target: Helper,
  quiet: number,
  pops: number,
  index: (x: Sem) => Val = stackIndex,
): Instruction {
  return {
    name,
    rows,
    ...(target === x87CompareFlags ? { feature: "cmov", writes: "OSZAPC" } : {}),
    semantics: (x) => {
      begin(x);
      x.invoke(target, index(x), quiet, pops);
    },
  };
}

function withReal(name: string, rows: readonly string[], pops: number): Instruction {
  return {
    name,
    rows,
    semantics: (x) => {
      const { sig, se, flags } = beginWithReal(x);
      x.invoke(x87CompareMemory, sig, se, flags, pops);
    },
  };
}

function withInteger(name: string, rows: readonly string[], pops: number): Instruction {
  return {
    name,
    rows,
    semantics: (x) => {
      const { sig, se } = beginWithInteger(x);
      x.invoke(x87CompareMemory, sig, se, 0, pops);
    },
  };
}

const ST1 = (): Val => i32(1);

export const X87_COMPARE: InstructionGroup = [
  withReal("FCOM", ["D8 /2: Md", "DC /2: Mq"], 0),
  withReal("FCOMP", ["D8 /3: Md", "DC /3: Mq"], 1),
  withInteger("FICOM", ["DE /2: Mw", "DA /2: Md"], 0),
  withInteger("FICOMP", ["DE /3: Mw", "DA /3: Md"], 1),
  withRegister("FCOM", ["D8 D0+i: Nq", "DC D0+i: Nq"], x87CompareRegister, 0, 0),
  withRegister("FCOMP", ["D8 D8+i: Nq", "DC D8+i: Nq", "DE D0+i: Nq"], x87CompareRegister, 0, 1),
  withRegister("FCOMPP", ["DE D9"], x87CompareRegister, 0, 2, ST1),
  withRegister("FUCOM", ["DD E0+i: Nq"], x87CompareRegister, 1, 0),
  withRegister("FUCOMP", ["DD E8+i: Nq"], x87CompareRegister, 1, 1),
  withRegister("FUCOMPP", ["DA E9"], x87CompareRegister, 1, 2, ST1),
  withRegister("FCOMI", ["DB F0+i: Nq"], x87CompareFlags, 0, 0),
  withRegister("FCOMIP", ["DF F0+i: Nq"], x87CompareFlags, 0, 1),
  withRegister("FUCOMI", ["DB E8+i: Nq"], x87CompareFlags, 1, 0),
  withRegister("FUCOMIP", ["DF E8+i: Nq"], x87CompareFlags, 1, 1),
  {
    name: "FTST",
    rows: ["D9 E4"],
    semantics: (x) => {
      begin(x);
      x.invoke(x87CompareMemory, 0, 0, 0, 0);
    },
  },
  {
    name: "FXAM",
    rows: ["D9 E5"],
    semantics: (x) => {
      begin(x);
      x.invoke(x87Examine);
    },
  },
];
