// Stack instructions (SDM Vol. 2A-2B: ENTER, LEAVE, POP, POPA, POPF, PUSH, PUSHA, PUSHF).

import { i32, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper, updateMode } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import { segmentAddress } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import { ARITHMETIC_FLAGS, CPL, FLAG, GPR, RFLAGS, SREG, VECTOR } from "../state.ts";
import { pop, push, readStack, releaseStack, type StackBits, setStackPointer, stackMask } from "./stack-access.ts";

function size(x: Sem): StackBits {
  return x.opsize as StackBits;
}

/** POP to memory: the address is formed with the stack pointer already incremented, and a fault leaves the stack pointer as it was. */
function popMemory(x: Sem): void {
  const { c } = x;
  const bytes = x.opsize / 8;
  const value = readStack(x, size(x), 0, x.long);
  const old = c.let(x.gpr(GPR.RSP, 64));
  const before = c.let(x.effectiveAddress(0));
  releaseStack(x, bytes, x.long);
  const after = c.let(x.effectiveAddress(0));
  x.setGpr(GPR.RSP, 64, old);
  const linear = c.local("i64");
  c.if(
    before.ne(after),
    () => c.set(linear, x.addressAt(0, BigInt(bytes), bytes, true)),
    () => c.set(linear, x.addressAt(0, 0n, bytes, true)),
  );
  x.store(size(x), linear, value);
  releaseStack(x, bytes, x.long);
}

/** Virtual-8086 mode with IOPL below 3: PUSHF, POPF and their like raise #GP(0) (SDM Vol. 3B 20.2.7, without VME). */
export function checkVirtual8086(x: Env): void {
  const flags = x.c.let(x.get(RFLAGS));
  x.raiseIf(flags.and(FLAG.VM).ne(0).and(flags.and(FLAG.IOPL).ne(FLAG.IOPL)), VECTOR.GP, 0);
}

const POPF_ALWAYS = ARITHMETIC_FLAGS | FLAG.TF | FLAG.DF | FLAG.NT;
const POPF_ABOVE_16 = FLAG.AC | FLAG.ID;

/** The flags that POPF and IRET at the present privilege may change: IOPL at CPL 0, IF where CPL is not above IOPL (SDM Vol. 2B POPF). Real mode runs at CPL 0. */
export function changeableFlags(x: Env, bits: StackBits): Val {
  const always = bits === 16 ? POPF_ALWAYS : POPF_ALWAYS | POPF_ABOVE_16;
  const cpl = x.c.let(x.get(CPL));
  const iopl = x.get(RFLAGS).bits(12, 2);
  return x.c.let(
    select(cpl.leU(iopl), i32(FLAG.IF), 0)
      .or(select(cpl.eqz(), i32(FLAG.IOPL), 0))
      .or(always),
  );
}

/** Takes the flags in `changeable` from an image. The caller ends the block: an interrupt may have become possible. */
export function loadFlags(x: Env, image: Val, changeable: Val): void {
  const { c } = x;
  const fixed = c.let(image);
  const old = c.let(x.get(RFLAGS));
  x.setArithmeticFlags(fixed.and(ARITHMETIC_FLAGS));
  const mask = c.let(changeable.and(~ARITHMETIC_FLAGS));
  const loaded = c.let(old.and(mask.not()).or(fixed.and(mask)));
  x.put(RFLAGS, loaded);
  c.if(old.xor(loaded).and(FLAG.TF | FLAG.AC), () => x.invoke(updateMode));
}

/** Pushes and pops all eight registers: one check of each place, then the stack pointer. */
const ALL_REGISTERS = [GPR.RAX, GPR.RCX, GPR.RDX, GPR.RBX, GPR.RSP, GPR.RBP, GPR.RSI, GPR.RDI];

function pushAll(bits: 16 | 32): Helper {
  return faultingHelper(`pusha${bits}`, [], [], (x) => {
    const { c } = x;
    const bytes = bits / 8;
    const mask = stackMask(x);
    const pointer = c.let(x.gpr(GPR.RSP, 64));
    ALL_REGISTERS.forEach((register, n) => {
      const offset = c.let(pointer.sub((n + 1) * bytes).and(mask));
      x.store(bits, x.call(segmentAddress, SREG.SS, offset, bytes, 1), x.gpr(register, bits), "stack");
    });
    setStackPointer(x, mask, pointer.sub(8 * bytes).and(mask));
    x.done();
  });
}

function popAll(bits: 16 | 32): Helper {
  return faultingHelper(`popa${bits}`, [], [], (x) => {
    const { c } = x;
    const bytes = bits / 8;
    const mask = stackMask(x);
    const pointer = c.let(x.gpr(GPR.RSP, 64));
    // From the lowest address up, so that a fault names the first page that is missing.
    const values: Val[] = [];
    for (let n = 7; n >= 0; n--) {
      const offset = c.let(pointer.add((7 - n) * bytes).and(mask));
      values[n] = x.load(bits, x.call(segmentAddress, SREG.SS, offset, bytes, 0), "stack");
    }
    ALL_REGISTERS.forEach((register, n) => {
      if (register !== GPR.RSP) x.setGpr(register, bits, values[n]);
    });
    setStackPointer(x, mask, pointer.add(8 * bytes).and(mask));
    x.done();
  });
}

const PUSHA = { 16: pushAll(16), 32: pushAll(32) };
const POPA = { 16: popAll(16), 32: popAll(32) };

/** ENTER: (bytes of locals, nesting level). Everything is stored below the stack before the first register changes. */
function enterHelper(bits: StackBits): Helper {
  const bytes = bits / 8;
  return faultingHelper(`enter${bits}`, ["i32", "i32"], [], (x, locals, levels) => {
    const { c } = x;
    const mask = stackMask(x);
    const pointer = c.local("i64", x.gpr(GPR.RSP, 64));
    const store = (value: Val): void => {
      c.set(pointer, pointer.sub(bytes));
      x.store(bits, x.call(segmentAddress, SREG.SS, pointer.and(mask), bytes, 1), value, "stack");
    };
    store(x.gpr(GPR.RBP, bits));
    const frame = c.let(pointer);
    const level = c.let(levels.and(31));
    c.if(level, () => {
      const from = c.local("i64", x.gpr(GPR.RBP, 64));
      const left = c.local("i32", level.sub(1));
      c.block((end) => {
        c.loop((head) => {
          c.brIf(end, left.eqz());
          c.set(from, from.sub(bytes));
          store(x.load(bits, x.call(segmentAddress, SREG.SS, from.and(mask), bytes, 0), "stack"));
          c.set(left, left.sub(1));
          c.br(head);
        });
      });
      store(bits === 64 ? frame : frame.wrap());
    });
    const top = c.let(pointer.sub(locals.zx()).and(mask));
    x.probeWrite(bits, x.call(segmentAddress, SREG.SS, top, bytes, 1), "stack");
    if (bits === 32)
      x.setGpr(
        GPR.RBP,
        32,
        select(mask.eq(0xffff), x.gpr(GPR.RSP, 64).and(~0xffffn).or(frame.and(0xffff)), frame).wrap(),
      );
    else x.setGpr(GPR.RBP, bits, bits === 64 ? frame : frame.wrap());
    setStackPointer(x, mask, top);
    x.done();
  });
}

const ENTER: { readonly [bits in StackBits]: Helper } = {
  16: enterHelper(16),
  32: enterHelper(32),
  64: enterHelper(64),
};

function leaveHelper(bits: StackBits): Helper {
  const bytes = bits / 8;
  return faultingHelper(`leave${bits}`, [], [], (x) => {
    const mask = stackMask(x);
    const frame = x.c.let(x.gpr(GPR.RBP, 64).and(mask));
    const value = x.load(bits, x.call(segmentAddress, SREG.SS, frame, bytes, 0), "stack");
    setStackPointer(x, mask, frame.add(bytes).and(mask));
    x.setGpr(GPR.RBP, bits, value);
    x.done();
  });
}

const LEAVE: { readonly [bits in StackBits]: Helper } = {
  16: leaveHelper(16),
  32: leaveHelper(32),
  64: leaveHelper(64),
};

export const STACK: InstructionGroup = [
  {
    name: "PUSH",
    rows: ["50+r: Zv ; d64 stack", "FF /6: Ev ; d64 stack", "68: Iz ; d64 stack", "6A: sIb ; d64 stack"],
    hot: true,
    semantics: (x) => push(x, size(x), x.read(0), x.long),
  },
  {
    name: "POP",
    rows: ["58+r: Zv ; d64 stack", "8F /0: Ev ; d64 stack"],
    hot: true,
    semantics: (x) => {
      if (x.isMemory(0)) popMemory(x);
      else x.write(0, pop(x, size(x), x.long));
    },
  },
  {
    name: "PUSHA",
    rows: ["60 ; i64 stack"],
    semantics: (x) => x.invoke(PUSHA[x.opsize === 16 ? 16 : 32]),
  },
  {
    name: "POPA",
    rows: ["61 ; i64 stack"],
    semantics: (x) => x.invoke(POPA[x.opsize === 16 ? 16 : 32]),
  },
  {
    name: "PUSHF",
    rows: ["9C ; d64 stack"],
    reads: "OSZAPC",
    semantics: (x) => {
      if (!x.long) checkVirtual8086(x);
      const image = x.rflags().and(~(FLAG.VM | FLAG.RF));
      push(x, size(x), x.opsize === 64 ? image.zx() : image, x.long);
    },
  },
  {
    name: "POPF",
    rows: ["9D ; d64 stack end"],
    writes: "OSZAPC",
    semantics: (x) => {
      if (!x.long) checkVirtual8086(x);
      const image = pop(x, size(x), x.long);
      loadFlags(x, image.wrap(), changeableFlags(x, size(x)));
      x.endBlock();
    },
  },
  {
    name: "ENTER",
    rows: ["C8: Iw, Ib ; d64 stack"],
    semantics: (x) => x.invoke(ENTER[size(x)], x.read(0).and(0xffff), x.read(1)),
  },
  {
    name: "LEAVE",
    rows: ["C9 ; d64 stack"],
    semantics: (x) => {
      if (!x.long) {
        x.invoke(LEAVE[size(x)]);
        return;
      }
      const frame = x.c.let(x.gpr(GPR.RBP, 64));
      const value = x.load(size(x), frame, "stack");
      x.setGpr(GPR.RSP, 64, frame.add(x.opsize / 8));
      x.setGpr(GPR.RBP, x.opsize, value);
    },
  },
];
