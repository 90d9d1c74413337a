// FXSAVE, FXRSTOR, LDMXCSR, STMXCSR and the XSAVE family (SDM Vol. 1 10.5, 13.7 to 13.10; Vol. 2A-2D).

import { select, type Val, v128 } from "../../wasm/value.ts";
import { faultingHelper } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import type { Env, Sem } from "../semantics.ts";
import { CR0, CR0_BIT, CR4, CR4_BIT, GPR, MXCSR, VECTOR, XCR0 } from "../state.ts";
import { allowedBits, hasFeature } from "./control.ts";
import {
  at,
  forVectors,
  IMAGE,
  initX87,
  loadX87,
  loadXmm,
  MXCSR_BITS,
  resetMxcsr,
  storeMxcsr,
  storeX87,
  storeXmm,
} from "./legacy-image.ts";
import { requireCpl0 } from "./modes.ts";
import { edxEax, setEdxEax } from "./msr.ts";
import { AVX_COMPONENT, HEADER_SIZE, LEGACY_SIZE, XSTATE } from "./xsave-layout.ts";

const HEADER = { XSTATE_BV: LEGACY_SIZE, XCOMP_BV: LEGACY_SIZE + 8, RESERVED: LEGACY_SIZE + 16 } as const;
const COMPACTED = 1n << 63n;

/** #GP(0) for an area that is not aligned. */
function checkAlignment(x: Env, area: Val, bytes: number): void {
  x.raiseIf(area.and(BigInt(bytes - 1)).ne(0n), VECTOR.GP, 0);
}

/** Raises what a write (read) of the bytes from 0 to `last` could raise; areas are smaller than a page. */
function probeArea(x: Env, area: Val, last: number, write: boolean): void {
  for (const offset of [0, last]) {
    if (write) x.probeWrite(8, at(area, offset));
    else x.c.drop(x.load(8, at(area, offset)));
  }
}

function checkMxcsr(x: Env, image: Val): void {
  x.raiseIf(image.and(~MXCSR_BITS).ne(0), VECTOR.GP, 0);
}

const fxsave = faultingHelper("fxsave", ["i64", "i32"], [], (x, area, wide) => {
  checkAlignment(x, area, 16);
  probeArea(x, area, IMAGE.SIZE - 1, true);
  x.invoke(storeX87, area, wide);
  storeMxcsr(x, area);
  x.invoke(storeXmm, area);
  x.done();
});

const fxrstor = faultingHelper("fxrstor", ["i64", "i32"], [], (x, area, wide) => {
  checkAlignment(x, area, 16);
  probeArea(x, area, IMAGE.SIZE - 1, false);
  const mxcsr = x.load(32, at(area, IMAGE.MXCSR));
  checkMxcsr(x, mxcsr);
  x.put(MXCSR, mxcsr);
  x.invoke(loadX87, area, wide);
  x.invoke(loadXmm, area);
  x.done();
});

/** Bytes 16 to 31 of a vector register. */
function upperHalf(x: Env, offset: number): Val {
  return x.cpu.ldv128(0, offset + 16);
}

const SAVE = { XSAVE: 0, COMPACT: 1 } as const;

/** XSAVE, XSAVEOPT (as XSAVE: every component counts as changed) and XSAVEC: area, EDX:EAX, wide pointers, SAVE kind. */
const xsave = faultingHelper("xsave", ["i64", "i64", "i32", "i32"], [], (x, area, mask, wide, kind) => {
  const { c } = x;
  checkAlignment(x, area, 64);
  const bitmap = c.let(x.get(XCR0).and(mask.wrap()));
  const avx = c.let(bitmap.and(XSTATE.AVX));
  probeArea(x, area, LEGACY_SIZE + HEADER_SIZE - 1, true);
  c.if(avx, () => x.probeWrite(8, at(area, AVX_COMPONENT.offset + AVX_COMPONENT.size - 1)));
  c.if(bitmap.and(XSTATE.X87), () => x.invoke(storeX87, area, wide));
  c.if(bitmap.and(XSTATE.SSE), () => x.invoke(storeXmm, area));
  const compact = c.let(kind.eq(SAVE.COMPACT));
  // The standard form saves MXCSR with AVX too (SDM Vol. 1 13.5.2, 13.5.3).
  c.if(select(compact, bitmap.and(XSTATE.SSE), bitmap.and(XSTATE.SSE | XSTATE.AVX)), () => storeMxcsr(x, area));
  c.if(avx, () =>
    forVectors(x, (n, offset) => x.store(128, at(area, AVX_COMPONENT.offset + n * 16), upperHalf(x, offset))),
  );
  c.if(
    compact,
    () => {
      x.store(64, at(area, HEADER.XSTATE_BV), bitmap.zx());
      x.store(64, at(area, HEADER.XCOMP_BV), bitmap.zx().or(COMPACTED));
    },
    () => {
      const old = x.load(64, at(area, HEADER.XSTATE_BV));
      x.store(64, at(area, HEADER.XSTATE_BV), old.or(bitmap.zx()));
    },
  );
  x.done();
});

/** XRSTOR: area, EDX:EAX, wide pointers. */
const xrstor = faultingHelper("xrstor", ["i64", "i64", "i32"], [], (x, area, mask, wide) => {
  const { c } = x;
  checkAlignment(x, area, 64);
  const enabled = c.let(x.get(XCR0));
  const bitmap = c.let(enabled.and(mask.wrap()));
  probeArea(x, area, LEGACY_SIZE + HEADER_SIZE - 1, false);
  const held = x.load(64, at(area, HEADER.XSTATE_BV));
  const format = x.load(64, at(area, HEADER.XCOMP_BV));
  const reserved = x.load(64, at(area, HEADER.RESERVED));
  const compact = c.let(format.ltS(0n));
  const beyond = c.let(enabled.zx().xor(-1n));
  c.if(
    compact,
    () => {
      const components = c.let(format.and(~COMPACTED));
      x.raiseIf(
        components
          .and(beyond)
          .or(held.and(components.xor(-1n)))
          .or(reserved)
          .ne(0n),
        VECTOR.GP,
        0,
      );
      for (let offset = HEADER.RESERVED + 8; offset < LEGACY_SIZE + HEADER_SIZE; offset += 8)
        x.raiseIf(x.load(64, at(area, offset)).ne(0n), VECTOR.GP, 0);
    },
    () => x.raiseIf(format.or(reserved).or(held.and(beyond)).ne(0n), VECTOR.GP, 0),
  );
  const avx = c.let(bitmap.and(XSTATE.AVX));
  const loaded = c.let(bitmap.and(held.wrap()));
  c.if(loaded.and(XSTATE.AVX), () => c.drop(x.load(8, at(area, AVX_COMPONENT.offset + AVX_COMPONENT.size - 1))));
  const withMxcsr = c.let(select(compact, loaded.and(XSTATE.SSE), bitmap.and(XSTATE.SSE | XSTATE.AVX)));
  const mxcsr = x.load(32, at(area, IMAGE.MXCSR));
  c.if(withMxcsr, () => checkMxcsr(x, mxcsr));

  c.if(bitmap.and(XSTATE.X87), () => {
    c.if(
      loaded.and(XSTATE.X87),
      () => x.invoke(loadX87, area, wide),
      () => x.invoke(initX87),
    );
  });
  c.if(bitmap.and(XSTATE.SSE), () => {
    c.if(
      loaded.and(XSTATE.SSE),
      () => x.invoke(loadXmm, area),
      () => forVectors(x, (n) => x.setXmm(n, v128(0n, 0n))),
    );
    c.if(compact.and(withMxcsr.eqz()), () => resetMxcsr(x));
  });
  c.if(withMxcsr, () => x.put(MXCSR, mxcsr));
  c.if(avx, () => {
    c.if(
      loaded.and(XSTATE.AVX),
      () =>
        forVectors(x, (n, offset) =>
          c.stv128(x.cpu, 0, x.load(128, at(area, AVX_COMPONENT.offset + n * 16)), offset + 16),
        ),
      () => forVectors(x, (_, offset) => c.stv128(x.cpu, 0, v128(0n, 0n), offset + 16)),
    );
  });
  x.done();
});

function requireXsave(x: Env): void {
  x.raiseIf(x.get(CR4).and(CR4_BIT.OSXSAVE).eqz(), VECTOR.UD);
}

function requireFpu(x: Env, bits: number): void {
  x.raiseIf(x.get(CR0).and(bits), VECTOR.NM);
}

/** The checks of LDMXCSR and STMXCSR (SDM Vol. 2A, exceptions type 5). */
function requireSse(x: Env): void {
  const emulated = x.get(CR0).and(CR0_BIT.EM).ne(0);
  x.raiseIf(emulated.or(x.get(CR4).and(CR4_BIT.OSFXSR).eqz()), VECTOR.UD);
  requireFpu(x, CR0_BIT.TS);
}

function wide(x: Sem): number {
  return x.opsize === 64 ? 1 : 0;
}

function fxInstruction(name: string, reg: number, target: typeof fxsave): Instruction {
  return {
    name,
    rows: [`NP 0F AE /${reg}: M; mem`],
    feature: "fxsr",
    semantics: (x) => {
      requireFpu(x, CR0_BIT.EM | CR0_BIT.TS);
      x.invoke(target, x.addressAt(0, 0, IMAGE.SIZE, target === fxsave), wide(x));
    },
  };
}

function xsaveInstruction(name: string, row: string, feature: string, kind: number): Instruction {
  return {
    name,
    rows: [row],
    feature,
    semantics: (x) => {
      requireXsave(x);
      requireFpu(x, CR0_BIT.TS);
      x.invoke(xsave, x.addressAt(0, 0, LEGACY_SIZE + HEADER_SIZE, true), edxEax(x), wide(x), kind);
    },
  };
}

const xsetbv = faultingHelper("xsetbv", ["i32", "i64"], [], (x, index, value) => {
  const { c } = x;
  const low = c.let(value.wrap());
  const unknown = value
    .shrU(32)
    .ne(0n)
    .or(low.and(allowedBits(x, "XCR0_ALLOWED").not()).ne(0));
  const avxAlone = low.and(XSTATE.SSE | XSTATE.AVX).eq(XSTATE.AVX);
  x.raiseIf(index.ne(0).or(unknown).or(low.and(XSTATE.X87).eqz()).or(avxAlone), VECTOR.GP, 0);
  x.put(XCR0, low);
  x.done();
});

export const XSAVE_INSTRUCTIONS: InstructionGroup = [
  fxInstruction("FXSAVE", 0, fxsave),
  fxInstruction("FXRSTOR", 1, fxrstor),
  {
    name: "LDMXCSR",
    rows: ["NP 0F AE /2: Md"],
    feature: "sse",
    semantics: (x) => {
      requireSse(x);
      const image = x.c.let(x.read(0));
      checkMxcsr(x, image);
      x.put(MXCSR, image);
    },
  },
  {
    name: "STMXCSR",
    rows: ["NP 0F AE /3: Md"],
    feature: "sse",
    semantics: (x) => {
      requireSse(x);
      x.write(0, x.get(MXCSR));
    },
  },
  xsaveInstruction("XSAVE", "NP 0F AE /4: M; mem", "xsave", SAVE.XSAVE),
  xsaveInstruction("XSAVEOPT", "NP 0F AE /6: M; mem", "xsaveopt", SAVE.XSAVE),
  xsaveInstruction("XSAVEC", "NP 0F C7 /4: M; mem", "xsavec", SAVE.COMPACT),
  {
    name: "XRSTOR",
    rows: ["NP 0F AE /5: M; mem"],
    feature: "xsave",
    semantics: (x) => {
      requireXsave(x);
      requireFpu(x, CR0_BIT.TS);
      x.invoke(xrstor, x.addressAt(0, 0, LEGACY_SIZE + HEADER_SIZE), edxEax(x), wide(x));
    },
  },
  {
    name: "XGETBV",
    rows: ["NP 0F 01 D0"],
    feature: "xsave",
    semantics: (x) => {
      requireXsave(x);
      // Where there is XCR1, it gives the components in use: all that are enabled (SDM Vol. 1 13.6 lets a processor say so; Vol. 2D XGETBV).
      x.raiseIf(x.gpr(GPR.RCX, 32).gtU(hasFeature(x, "xgetbv1")), VECTOR.GP, 0);
      setEdxEax(x, x.get(XCR0).zx());
    },
  },
  {
    name: "XSETBV",
    rows: ["NP 0F 01 D1; end"],
    feature: "xsave",
    semantics: (x) => {
      requireXsave(x);
      requireCpl0(x);
      x.invoke(xsetbv, x.gpr(GPR.RCX, 32), edxEax(x));
      x.endBlock();
    },
  },
];
