// Basic arithmetic (Intel SDM Vol. 1 8.3.4, 8.3.5; Vol. 2A FABS to FXTRACT).

import type { ValType } from "../../wasm/ops.ts";
import { i32, type Operand, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Env, FloatStack, Sem } from "../semantics.ts";
import { FCW, FSW } from "../state.ts";
import {
  OPERATION,
  x87BinaryMemory,
  x87BinaryRegister,
  x87RoundToIntegral,
  x87Scale,
  x87SquareRoot,
} from "./arithmetic.ts";
import { maskedFlags, onInteger, onReal, onRegisters, stackIndex } from "./operands.ts";
import {
  quickly,
  x87PackedIntegral,
  x87PackedScale,
  x87QuickAdd,
  x87QuickDivide,
  x87QuickMultiply,
  x87QuickRoot,
  x87QuickSubtract,
} from "./quick.ts";
import { x87Extract, x87Remainder } from "./remainder.ts";
import {
  BEFORE_RESULT,
  CONDITION_CODES,
  type Extended,
  empty,
  filled,
  INDEFINITE_SE,
  INDEFINITE_SIG,
  moveTop,
  readStack,
  report,
  STACK_OVERFLOW,
  STACK_UNDERFLOW,
  STATUS,
  withDenormal,
  writeStack,
  x87Result,
  x87Status,
} from "./state.ts";

/** Mnemonic stem, operation, and ModRM.reg of the DC and DE register forms, where ST(0) is the second operand. */
const BINARY: readonly (readonly [stem: string, operation: number, toStack: number])[] = [
  ["ADD", OPERATION.ADD, 0],
  ["MUL", OPERATION.MULTIPLY, 1],
  ["SUB", OPERATION.SUBTRACT, 5],
  ["SUBR", OPERATION.SUBTRACT_REVERSED, 4],
  ["DIV", OPERATION.DIVIDE, 7],
  ["DIVR", OPERATION.DIVIDE_REVERSED, 6],
];

/** The functions of the usual course, and whether they take the operands in the other order. */
const QUICK: { readonly [operation: number]: readonly [Helper, boolean] } = {
  [OPERATION.ADD]: [x87QuickAdd, false],
  [OPERATION.MULTIPLY]: [x87QuickMultiply, false],
  [OPERATION.SUBTRACT]: [x87QuickSubtract, false],
  [OPERATION.SUBTRACT_REVERSED]: [x87QuickSubtract, true],
  [OPERATION.DIVIDE]: [x87QuickDivide, false],
  [OPERATION.DIVIDE_REVERSED]: [x87QuickDivide, true],
};

function registerRow(first: string, reg: number): string {
  return `${first} ${(0xc0 + reg * 8).toString(16).toUpperCase()}+i: Nq`;
}

/** The operation on two values in the usual course, by its quick function. */
function operate(x: Sem, stack: FloatStack, operation: number, a: Extended, b: Extended): ReturnType<typeof quickly> {
  const [target, swaps] = QUICK[operation];
  const [first, second] = swaps ? [b, a] : [a, b];
  return quickly(x, stack, target, first.sig, first.se, second.sig, second.se);
}

/** ST(destination) with ST(source). */
function withRegisters(x: Sem, operation: number, destination: Operand, source: Operand, pops: number): void {
  onRegisters(
    x,
    (stack) => {
      const result = operate(x, stack, operation, stack.read(destination), stack.read(source));
      stack.note();
      stack.report(result.flags);
      stack.write(destination, result.sig, result.se);
      if (pops !== 0) stack.pop();
    },
    () => x.invoke(x87BinaryRegister, operation, destination, source, pops),
  );
}

/** ST(0) with an operand from memory, whose own flags send it the other way. */
function withMemory(x: Sem, stack: FloatStack, operation: number, operand: Extended): void {
  const result = operate(x, stack, operation, stack.read(0), operand);
  stack.note(x.address(0));
  stack.report(result.flags);
  stack.write(0, result.sig, result.se);
}

const binary = BINARY.flatMap(([stem, operation, toStack]): Instruction[] => [
  {
    name: `F${stem}`,
    rows: [`D8 /${operation}: Md`, `DC /${operation}: Mq`],
    semantics: (x) =>
      onReal(
        x,
        (stack, operand) => withMemory(x, stack, operation, operand),
        ({ sig, se, flags }) => x.invoke(x87BinaryMemory, operation, sig, se, flags),
      ),
  },
  {
    name: `F${stem}`,
    rows: [registerRow("D8", operation)],
    semantics: (x) => withRegisters(x, operation, 0, stackIndex(x), 0),
  },
  {
    name: `F${stem}`,
    rows: [registerRow("DC", toStack)],
    semantics: (x) => withRegisters(x, operation, stackIndex(x), 0, 0),
  },
  {
    name: `F${stem}P`,
    rows: [registerRow("DE", toStack)],
    semantics: (x) => withRegisters(x, operation, stackIndex(x), 0, 1),
  },
  {
    name: `FI${stem}`,
    rows: [`DE /${operation}: Mw`, `DA /${operation}: Md`],
    semantics: (x) =>
      onInteger(
        x,
        (stack, operand) => withMemory(x, stack, operation, operand),
        ({ sig, se }) => x.invoke(x87BinaryMemory, operation, sig, se, 0),
      ),
  },
]);

/** An instruction on ST(0) by a helper (sig, se) -> (sig, se, flags). */
function unary(name: string, compute: Helper): Helper {
  return helper(name, [], [], (x) => {
    const { c } = x;
    c.if(
      filled(x, 0),
      () => {
        const { sig, se } = readStack(x, 0);
        const [resultSig, resultSe, flags] = x.callMany(compute, sig, se);
        x.invoke(x87Result, 0, resultSig, resultSe, flags, 0);
      },
      () => x.invoke(x87Result, 0, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, 0),
      "likely",
    );
    x.done();
  });
}

const x87RootInstruction = unary("x87RootInstruction", x87SquareRoot);
const x87IntegralInstruction = unary("x87IntegralInstruction", x87RoundToIntegral);

/** (se' = se AND mask XOR flip): FABS and FCHS, which take any contents. */
const x87SignInstruction = helper("x87SignInstruction", ["i32", "i32"], [], (x, mask, flip) => {
  const { sig, se } = readStack(x, 0);
  const isEmpty = x.c.let(empty(x, 0));
  const changed = se.and(mask).xor(flip);
  const value = select(isEmpty, INDEFINITE_SIG, sig);
  x.invoke(x87Result, 0, value, select(isEmpty, INDEFINITE_SE, changed), isEmpty.mul(STACK_UNDERFLOW), 0);
  x.done();
});

const BOTH: readonly ValType[] = ["i32"];

/** Operands ST(0) and ST(1), or a stack underflow. */
function withTwo(x: Env, body: (a: { sig: Val; se: Val }, b: { sig: Val; se: Val }) => void): void {
  x.c.if(
    filled(x, 0).and(filled(x, 1)),
    () => body(readStack(x, 0), readStack(x, 1)),
    () => x.invoke(x87Result, 0, INDEFINITE_SIG, INDEFINITE_SE, STACK_UNDERFLOW, 0),
    "likely",
  );
}

const x87ScaleInstruction = helper("x87ScaleInstruction", [], [], (x) => {
  withTwo(x, (a, b) => {
    const [sig, se, flags] = x.callMany(x87Scale, a.sig, a.se, b.sig, b.se);
    x.invoke(x87Result, 0, sig, se, flags, 0);
  });
  x.done();
});

/** (nearest): FPREM and FPREM1, whose condition codes tell the quotient. */
const x87RemainderInstruction = helper("x87RemainderInstruction", BOTH, [], (x, nearest) => {
  x.put(FSW, x.get(FSW).and(~STATUS.C2));
  withTwo(x, (a, b) => {
    const [sig, se, flags, codes] = x.callMany(x87Remainder, a.sig, a.se, b.sig, b.se, nearest);
    const raised = withDenormal(x, flags);
    const stopped = raised.and(BEFORE_RESULT).and(x.get(FCW).not()).ne(0);
    const cleared = select(stopped, i32(STATUS.C2), codes);
    const unmasked = x.call(x87Status, raised, cleared);
    x.c.if(unmasked.and(BEFORE_RESULT).eqz(), () => writeStack(x, 0, sig, se));
  });
  x.done();
});

const x87ExtractInstruction = helper("x87ExtractInstruction", [], [], (x) => {
  const { c } = x;
  const flags = c.local("i32");
  const sig = c.local("i64", INDEFINITE_SIG);
  const se = c.local("i32", INDEFINITE_SE);
  const exponentSig = c.local("i64", INDEFINITE_SIG);
  const exponentSe = c.local("i32", INDEFINITE_SE);
  c.if(
    empty(x, 0),
    () => c.set(flags, STACK_UNDERFLOW),
    () => {
      c.if(
        filled(x, 7),
        () => c.set(flags, STACK_OVERFLOW),
        () => {
          const value = readStack(x, 0);
          const results = x.callMany(x87Extract, value.sig, value.se);
          [sig, se, exponentSig, exponentSe, flags].forEach((local, n) => {
            c.set(local, results[n]);
          });
        },
      );
    },
  );
  const unmasked = report(x, flags);
  c.if(unmasked.and(STATUS.IE | STATUS.DE | STATUS.ZE).eqz(), () => {
    writeStack(x, 0, exponentSig, exponentSe);
    moveTop(x, 7);
    writeStack(x, 0, sig, se);
  });
  x.done();
});

function remainder(name: string, row: string, nearest: number): Instruction {
  return {
    name,
    rows: [row],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const a = stack.read(0);
          const b = stack.read(1);
          const [sig, se, flags, codes] = x.callMany(x87Remainder, a.sig, a.se, b.sig, b.se, nearest);
          const raised = maskedFlags(x, stack, flags);
          // Of what is no number the condition codes tell nothing.
          stack.unless(codes.ne(CONDITION_CODES));
          stack.note();
          stack.report(raised, CONDITION_CODES);
          stack.write(0, sig, se);
        },
        () => x.invoke(x87RemainderInstruction, nearest),
      ),
  };
}

const extract: Instruction = {
  name: "FXTRACT",
  rows: ["D9 F4"],
  semantics: (x) =>
    onRegisters(
      x,
      (stack) => {
        const value = stack.read(0);
        stack.room();
        const [sig, se, exponentSig, exponentSe, flags] = x.callMany(x87Extract, value.sig, value.se);
        const raised = maskedFlags(x, stack, flags);
        stack.note();
        stack.report(raised);
        stack.write(0, exponentSig, exponentSe);
        stack.push(sig, se);
      },
      () => x.invoke(x87ExtractInstruction),
    ),
};

/** An instruction on ST(0), or ST(0) and ST(1), by a quick function, else a general one. */
function computed(name: string, row: string, operands: 1 | 2, target: Helper, general: Helper): Instruction {
  return {
    name,
    rows: [row],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const values = Array.from({ length: operands }, (_, n) => stack.read(n));
          const result = quickly(x, stack, target, ...values.flatMap(({ sig, se }) => [sig, se]));
          stack.note();
          stack.report(result.flags);
          stack.write(0, result.sig, result.se);
        },
        () => x.invoke(general),
      ),
  };
}

function signed(name: string, row: string, mask: number, flip: number): Instruction {
  return {
    name,
    rows: [row],
    semantics: (x) =>
      onRegisters(
        x,
        (stack) => {
          const { sig, se } = stack.read(0);
          stack.note();
          stack.report(0);
          stack.write(0, sig, se.and(mask).xor(flip));
        },
        () => x.invoke(x87SignInstruction, mask, flip),
      ),
  };
}

export const X87_ARITHMETIC: InstructionGroup = [
  ...binary,
  signed("FCHS", "D9 E0", 0xffff, 0x8000),
  signed("FABS", "D9 E1", 0x7fff, 0),
  extract,
  remainder("FPREM1", "D9 F5", 1),
  remainder("FPREM", "D9 F8", 0),
  computed("FSQRT", "D9 FA", 1, x87QuickRoot, x87RootInstruction),
  computed("FRNDINT", "D9 FC", 1, x87PackedIntegral, x87IntegralInstruction),
  computed("FSCALE", "D9 FD", 2, x87PackedScale, x87ScaleInstruction),
];
