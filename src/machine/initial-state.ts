// Puts the state in which a loader hands over the bootstrap processor (src/boot/cpu-state.ts) into a vCPU's registers.

import { GPR_NAMES, type InitialCpuState, type SegmentName } from "../boot/cpu-state.ts";
import {
  CR0,
  CR3,
  CR4,
  EFER,
  GDTR_BASE,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  RIP,
  SEGMENTS,
  type SegmentFields,
  SREG,
  TR,
} from "../isa/state.ts";
import type { Engine } from "../vmm/engine.ts";

const SEGMENT_FIELDS: { readonly [name in SegmentName]: SegmentFields } = {
  es: SEGMENTS[SREG.ES],
  cs: SEGMENTS[SREG.CS],
  ss: SEGMENTS[SREG.SS],
  ds: SEGMENTS[SREG.DS],
  fs: SEGMENTS[SREG.FS],
  gs: SEGMENTS[SREG.GS],
  ldtr: LDTR,
  tr: TR,
};

/** The engine has just been reset. CPL is 0, as every loader here starts a kernel in ring 0. */
export function setInitialState(engine: Engine, state: InitialCpuState): void {
  GPR_NAMES.forEach((name, number) => {
    engine.setGpr(number, state.gprs[name]);
  });
  for (const [name, fields] of Object.entries(SEGMENT_FIELDS)) {
    const segment = state.segments[name as SegmentName];
    engine.set(fields.selector, segment.selector);
    engine.set(fields.base, segment.base);
    engine.set(fields.limit, segment.limit);
    engine.set(fields.attr, segment.attributes);
  }
  engine.set(GDTR_BASE, state.gdtr.base);
  engine.set(GDTR_LIMIT, state.gdtr.limit);
  engine.set(IDTR_BASE, state.idtr.base);
  engine.set(IDTR_LIMIT, state.idtr.limit);
  engine.set(CR0, Number(state.cr0));
  engine.set(CR3, state.cr3);
  engine.set(CR4, Number(state.cr4));
  engine.set(EFER, Number(state.efer));
  engine.set(RIP, state.rip);
  engine.setRflags(Number(state.rflags));
  engine.registersChanged();
}
