// An engine that executes a script instead of a guest: each run does the next step, which may call the core as instructions would, and gives
// an exit reason. Registers are a map.

import { EXIT } from "../../src/isa/exit.ts";
import { ACTIVITY, type Field, FLAG, PENDING_VECTOR, RFLAGS, RIP } from "../../src/isa/state.ts";
import { type Engine, type EngineHost, type EngineStatistics, INJECT, type MemorySlot } from "../../src/vmm/engine.ts";
import type { Section } from "../../src/vmm/state.ts";

/** One run: an EXIT reason; without one the budget was used up. */
export type Step = (engine: FakeEngine, host: EngineHost) => number | undefined;

export class FakeEngine implements Engine {
  readonly host: EngineHost;
  readonly steps: Step[] = [];
  /** `interrupt 48`, `nmi 2`: what was injected, in order. */
  readonly injected: string[] = [];
  readonly budgets: number[] = [];
  /** PAUSE instructions after which the run was to end. */
  pauses = 0;
  readonly written: [host: number, length: number][] = [];
  /** As they were last set. */
  slots: readonly MemorySlot[] | undefined;
  pending = 0;
  exitRequests = 0;
  nmiBlocked = false;
  shadow = false;
  resets: string[] = [];
  private readonly fields = new Map<string, number | bigint>();
  private readonly gprs = new Array<bigint>(16).fill(0n);
  private count = 0;

  constructor(host: EngineHost) {
    this.host = host;
    this.set(PENDING_VECTOR, 0xffffffff);
    this.set(RFLAGS, 2);
  }

  check(): void {}

  run(budget: number, pauses = 0): number {
    this.budgets.push(budget);
    this.pauses = pauses;
    this.count += budget;
    const step = this.steps.shift();
    if (step === undefined) {
      this.set(ACTIVITY, 1);
      return EXIT.HLT;
    }
    return step(this, this.host) ?? EXIT.BUDGET;
  }

  requestExit(): void {
    this.exitRequests++;
  }

  setPendingEvents(events: number): void {
    this.pending = events;
  }

  canInject(kind: number): boolean {
    if (this.shadow) return false;
    return kind === INJECT.NMI ? !this.nmiBlocked : this.interruptsEnabled;
  }

  inject(kind: number, vector: number): boolean {
    this.injected.push(`${kind === INJECT.NMI ? "nmi" : "interrupt"} ${vector}`);
    this.set(ACTIVITY, 0);
    // As an interrupt gate does.
    this.interruptsEnabled = false;
    if (kind === INJECT.NMI) this.nmiBlocked = true;
    return true;
  }

  get interruptsEnabled(): boolean {
    return (Number(this.get(RFLAGS)) & FLAG.IF) !== 0;
  }

  set interruptsEnabled(enabled: boolean) {
    const flags = Number(this.get(RFLAGS)) & ~FLAG.IF;
    this.set(RFLAGS, enabled ? flags | FLAG.IF : flags);
  }

  get(field: Field): number | bigint {
    return this.fields.get(field.name) ?? (field.type === "i64" ? 0n : 0);
  }

  set(field: Field, value: number | bigint): void {
    this.fields.set(field.name, field.type === "i64" ? BigInt(value) : Number(value) >>> 0);
  }

  gpr(number: number): bigint {
    return this.gprs[number];
  }

  setGpr(number: number, value: bigint): void {
    this.gprs[number] = value;
  }

  rflags(): number {
    return Number(this.get(RFLAGS));
  }

  setRflags(value: number): void {
    this.set(RFLAGS, value);
  }

  registersChanged(): void {}

  reset(kind: "power-on" | "init"): void {
    this.resets.push(kind);
    this.fields.clear();
    this.set(PENDING_VECTOR, 0xffffffff);
    this.set(RFLAGS, 2);
    this.set(RIP, 0xfff0);
    this.pending = 0;
    this.nmiBlocked = false;
    this.shadow = false;
  }

  memoryWritten(host: number, length: number): void {
    this.written.push([host, length]);
  }

  protectPage(_page: number): void {}

  protectAll(): void {}

  dropCode(): void {}

  codeWritten(host: number, length: number): void {
    this.written.push([host, length]);
  }

  setSlots(slots: readonly MemorySlot[]): void {
    this.slots = slots;
  }

  translate(_linear: bigint): number {
    return -1;
  }

  retired(): number {
    return this.count;
  }

  statistics(): EngineStatistics {
    return { retired: this.count };
  }

  save(): Section {
    return {
      kind: "fake",
      version: 1,
      fields: { registers: [...this.fields].map(([name, value]) => ({ name, value })) },
    };
  }

  restore(section: Section): void {
    this.fields.clear();
    for (const { name, value } of section.fields.registers as { name: string; value: number }[])
      this.fields.set(name, value);
  }
}

/** HLT with interrupts on or off. */
export function halt(interrupts: boolean): Step {
  return (engine) => {
    engine.interruptsEnabled = interrupts;
    engine.set(ACTIVITY, 1);
    return EXIT.HLT;
  };
}
