// Control (Intel SDM Vol. 1 8.3.8 to 8.3.12; Vol. 2A FCLEX to FWAIT). FINIT, FCLEX, FSTCW, FSTSW, FSTENV and FSAVE are FWAIT and the
// instruction that does not wait.

import { i32, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { FloatStack, Sem } from "../semantics.ts";
import { CR0, CR0_BIT, FCW, FSW, FTW, VECTOR } from "../state.ts";
import {
  clearExceptions,
  ENVIRONMENT_SIZE,
  loadControl,
  STATE_SIZE,
  x87Initialise,
  x87RestoreEnvironment,
  x87RestoreState,
  x87SaveEnvironment,
  x87SaveState,
} from "./environment.ts";
import { begin, stackIndex } from "./operands.ts";
import {
  EXCEPTIONS,
  moveTop,
  physical,
  pop,
  report,
  STATUS,
  summarise,
  useX87,
  useX87WithoutWait,
  waitX87,
} from "./state.ts";

/** Memory images: 16-bit layouts by the operand size. */
function image(
  name: string,
  row: string,
  target: Helper,
  sizes: { readonly 16: number; readonly 32: number },
  waits: boolean,
): Instruction {
  return {
    name,
    rows: [row],
    semantics: (x) => {
      if (waits) useX87(x);
      else useX87WithoutWait(x);
      const wide = x.opsize === 16 ? 16 : 32;
      x.invoke(target, x.addressAt(0, 0, sizes[wide], !waits), wide === 32 ? 1 : 0);
    },
  };
}

function withoutWait(name: string, rows: readonly string[], act: (x: Sem) => void): Instruction {
  return {
    name,
    rows,
    semantics: (x) => {
      useX87WithoutWait(x);
      act(x);
    },
  };
}

/** The same where nothing unusual can come up. */
function storeWord(name: string, row: string, act: (x: Sem, stack: FloatStack) => void): Instruction {
  return {
    name,
    rows: [row],
    semantics: (x) =>
      x.usually(
        () => {},
        (stack) => act(x, stack),
        () => {},
        false,
      ),
  };
}

/** Frees a register by its number in the stack. */
function free(x: Sem, index: Val): void {
  x.put(FTW, x.get(FTW).and(i32(1).shl(physical(x, index)).not()));
}

function clearC1(x: Sem): void {
  report(x, 0);
}

/** CR0.TS makes FWAIT raise #NM only with CR0.MP set (SDM Vol. 3A 2.5). */
const x87Wait = faultingHelper("x87Wait", [], [], (x) => {
  const both = CR0_BIT.MP | CR0_BIT.TS;
  x.raiseIf(x.get(CR0).and(both).eq(both), VECTOR.NM);
  waitX87(x);
  x.done();
});

export const X87_CONTROL: InstructionGroup = [
  {
    name: "FLDCW",
    rows: ["D9 /5: Mw"],
    semantics: (x) =>
      x.usually(
        () => x.read(0),
        (stack, value) => {
          // What is pending must not become unmasked.
          stack.unless(stack.status().and(value.not()).and(EXCEPTIONS));
          loadControl(x, value);
        },
        (value) => {
          loadControl(x, value);
          summarise(x);
        },
      ),
  },
  storeWord("FNSTCW", "D9 /7: Mw", (x) => x.write(0, x.get(FCW))),
  storeWord("FNSTSW", "DD /7: Mw", (x, stack) => x.write(0, stack.status())),
  storeWord("FNSTSW", "DF E0", (x, stack) => x.setGpr(0, 16, stack.status())),
  withoutWait("FNINIT", ["DB E3"], (x) => x.invoke(x87Initialise)),
  withoutWait("FNCLEX", ["DB E2"], clearExceptions),
  withoutWait("FNOP", ["DB E0", "DB E1", "DB E4"], () => {}),
  image("FLDENV", "D9 /4: M", x87RestoreEnvironment, ENVIRONMENT_SIZE, true),
  image("FNSTENV", "D9 /6: M", x87SaveEnvironment, ENVIRONMENT_SIZE, false),
  image("FRSTOR", "DD /4: M", x87RestoreState, STATE_SIZE, true),
  image("FNSAVE", "DD /6: M", x87SaveState, STATE_SIZE, false),
  {
    name: "FNOP",
    rows: ["D9 D0"],
    semantics: begin,
  },
  {
    name: "FFREE",
    rows: ["DD C0+i: Nq"],
    semantics: (x) => {
      begin(x);
      clearC1(x);
      free(x, stackIndex(x));
    },
  },
  {
    name: "FFREEP",
    rows: ["DF C0+i: Nq"],
    semantics: (x) => {
      begin(x);
      clearC1(x);
      free(x, stackIndex(x));
      pop(x);
    },
  },
  {
    name: "FDECSTP",
    rows: ["D9 F6"],
    semantics: (x) => {
      begin(x);
      clearC1(x);
      moveTop(x, 7);
    },
  },
  {
    name: "FINCSTP",
    rows: ["D9 F7"],
    semantics: (x) => {
      begin(x);
      clearC1(x);
      moveTop(x, 1);
    },
  },
  {
    name: "FWAIT",
    rows: ["9B"],
    semantics: (x) => {
      const watched = x.get(CR0).and(CR0_BIT.TS).or(x.get(FSW).and(STATUS.ES));
      x.c.if(watched, () => x.invoke(x87Wait), undefined, "unlikely");
    },
  },
];
