// Comparison and classification instructions (Intel SDM Vol. 1 8.3.6; Vol. 2A FCOM, FCOMI, FICOM, FTST, FUCOM, FXAM).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import type { Helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { FloatStack, Sem } from "../semantics.ts";
import { x87CompareFlags, x87CompareMemory, x87CompareRegister, x87Examine } from "./compare.ts";
import { exponentOf, MAX_EXPONENT, signOf } from "./format.ts";
import { onInteger, onReal, onRegisters, stackIndex } from "./operands.ts";
import { compareQuickly } from "./quick-format.ts";
import { CONDITION_CODES, type Extended, STATUS } from "./state.ts";

const CODES_SHIFT = 8;

/** Sets the condition codes from a relation: C0, C2 and C3 lie as CF, PF and ZF do. */
function conclude(stack: FloatStack, relation: Val, flags: Val, pops: number): void {
  stack.report(relation.shl(CODES_SHIFT).or(flags), CONDITION_CODES);
  for (let n = 0; n < pops; n++) stack.pop();
}

/** With a register by ModRM.rm, or ST(1). */
function withRegister(
  name: string,
  rows: readonly string[],
  target: Helper,
  quiet: number,
  pops: number,
  index: (x: Sem) => Val = stackIndex,
): Instruction {
  const setsFlags = target === x87CompareFlags;
  return {
    name,
    rows,
    ...(setsFlags ? { feature: "cmov", writes: "OSZAPC" } : {}),
    semantics: (x) => {
      const other = index(x);
      onRegisters(
        x,
        (stack) => {
          const { relation, flags } = compareQuickly(x, stack, stack.read(0), stack.read(other), quiet);
          stack.note();
          if (setsFlags) {
            stack.report(flags);
            for (let n = 0; n < pops; n++) stack.pop();
            x.setArithmeticFlags(relation);
          } else conclude(stack, relation, flags, pops);
        },
        () => x.invoke(target, other, quiet, pops),
      );
    },
  };
}

/** ST(0) with an operand from memory. */
function withMemory(x: Sem, stack: FloatStack, operand: Extended, pops: number): void {
  const { relation, flags } = compareQuickly(x, stack, stack.read(0), operand, 0);
  stack.note(x.address(0));
  conclude(stack, relation, flags, pops);
}

function withReal(name: string, rows: readonly string[], pops: number): Instruction {
  return {
    name,
    rows,
    semantics: (x) =>
      onReal(
        x,
        (stack, operand) => withMemory(x, stack, operand, pops),
        ({ sig, se, flags }) => x.invoke(x87CompareMemory, sig, se, flags, pops),
      ),
  };
}

function withInteger(name: string, rows: readonly string[], pops: number): Instruction {
  return {
    name,
    rows,
    semantics: (x) =>
      onInteger(
        x,
        (stack, operand) => withMemory(x, stack, operand, pops),
        ({ sig, se }) => x.invoke(x87CompareMemory, sig, se, 0, pops),
      ),
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
      onRegisters(
        x,
        (stack) => {
          const zero = { sig: i64(0), se: i32(0) };
          const { relation, flags } = compareQuickly(x, stack, stack.read(0), zero, 0);
          stack.note();
          conclude(stack, relation, flags, 0);
        },
        () => x.invoke(x87CompareMemory, 0, 0, 0, 0),
      );
    },
  },
  {
    name: "FXAM",
    rows: ["D9 E5"],
    semantics: (x) => {
      onRegisters(
        x,
        (stack) => {
          const { sig, se } = stack.read(0);
          const normal = x.c.let(
            sig.ltS(0).and(
              exponentOf(se)
                .sub(1)
                .ltU(MAX_EXPONENT - 1),
            ),
          );
          stack.unless(normal.or(sig.eqz().and(exponentOf(se).eqz())).eqz());
          stack.note();
          const codes = select(normal, i32(STATUS.C2), STATUS.C3).or(signOf(se).mul(STATUS.C1));
          stack.report(codes, CONDITION_CODES);
        },
        () => x.invoke(x87Examine),
      );
    },
  },
];
