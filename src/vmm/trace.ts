// What of a running machine can be printed as it happens. Each kind is a function that takes a line, or undefined while it is off: where
// nothing is traced, nothing is formatted.

export const TRACE_KINDS = {
  exits: "why the engine returned to the core, each time",
  interrupts: "interrupts and NMIs: requested, injected, ended",
  ports: "accesses to I/O ports",
  mmio: "accesses to memory-mapped registers",
  msr: "MSRs that the core answers for",
  anomalies: "the first few of each kind of guest mistake",
  regions: "regions of translated code: handed over, first entered, dropped",
  code: "regions as text: guest instructions, each before its WebAssembly (long)",
  state: "where the vCPU is, twice a second, and all registers at the end",
  blocks: "where the vCPU is after each block of instructions (slow)",
} as const;

export type TraceKind = keyof typeof TRACE_KINDS;

export type Trace = { readonly [kind in TraceKind]?: (line: string) => void };

export function isTraceKind(text: string): text is TraceKind {
  return Object.hasOwn(TRACE_KINDS, text);
}

/** Traces of the named kinds, all into one sink. */
export function traceTo(kinds: readonly TraceKind[], sink: (line: string) => void): Trace {
  return Object.fromEntries(kinds.map((kind) => [kind, (line: string) => sink(`${kind}: ${line}`)]));
}
