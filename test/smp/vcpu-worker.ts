// One vCPU of the litmus machine, on a thread of its own.

import { parentPort } from "node:worker_threads";
import { kick, limitWord } from "../../src/cpu/kick.ts";
import { EXIT } from "../../src/isa/exit.ts";
import { GPR, IDTR_BASE, RFLAGS, RIP } from "../../src/isa/state.ts";
import { EVENT, INJECT } from "../../src/vmm/engine.ts";
import { AT, everything, RAM_BYTES, Rig } from "../cpu/rig.ts";
import { DATA, IDT, type ToVcpu, type VcpuData, type VcpuResult, VECTOR } from "./machine.ts";
import { Mailbox, REQUEST } from "./requests.ts";

/** PAUSE instructions after which the thread gives its CPU away: who is waited for may need it. */
const PAUSES = 64;
const NAP_MS = 0.05;
const BUDGET = 100_000_000;

const NAP = new Int32Array(new SharedArrayBuffer(4));

class LitmusVcpu {
  readonly rig: Rig;
  private readonly data: VcpuData;
  private readonly own: Mailbox;
  private readonly others: readonly Mailbox[];
  private memories: readonly WebAssembly.Memory[] = [];

  constructor(data: VcpuData) {
    this.data = data;
    const boxes = Array.from({ length: data.cpus }, (_, n) => new Mailbox(data.control, n));
    this.own = boxes[data.id];
    this.others = boxes.filter((box) => box !== this.own);
    this.rig = new Rig(
      everything(),
      {
        requested: () => this.own.waiting || (this.own.interrupted && this.rig.engine.canInject(INJECT.INTERRUPT)),
        portOut: () => {
          for (const box of this.others) box.interrupt();
          this.kickOthers();
        },
        protectPage: (page) => this.protectPage(page),
        codeWritten: (at, length) => {
          for (const box of this.others) if (box.post(REQUEST.DROP, at, length) === 0) box.dropAll();
          this.kickOthers();
        },
      },
      data.threshold,
      data.ram,
    ).longMode();
  }

  private kickOthers(): void {
    this.memories.forEach((memory, n) => {
      if (n !== this.data.id) kick(limitWord(memory));
    });
  }

  private protectPage(page: number): void {
    const { others } = this;
    const tickets = others.map(() => 0);
    const isDone = (box: Mailbox, n: number): boolean => {
      if (tickets[n] === 0) tickets[n] = box.post(REQUEST.PROTECT, page, 4096);
      return tickets[n] !== 0 && box.isDone(tickets[n]);
    };
    for (let spins = 0; !others.map(isDone).every(Boolean); spins++) {
      if (spins === 0 || tickets.includes(0)) this.kickOthers();
      this.serve();
      if (spins > 100) Atomics.wait(NAP, 0, 0, NAP_MS);
    }
  }

  private serve(): void {
    if (this.own.takeDropAll()) this.rig.engine.codeWritten(0, RAM_BYTES);
    this.own.serve((kind, at, length) => {
      if (kind === REQUEST.PROTECT) this.rig.engine.protectPage(at);
      else this.rig.engine.codeWritten(at, length);
    });
  }

  private takeInterrupt(): void {
    const { own } = this;
    const { engine } = this.rig;
    if (!own.interrupted) return;
    if (engine.canInject(INJECT.INTERRUPT)) {
      own.takeInterrupt();
      engine.setPendingEvents(0);
      engine.inject(INJECT.INTERRUPT, VECTOR);
    } else engine.setPendingEvents(EVENT.INTERRUPT);
  }

  run(memories: readonly WebAssembly.Memory[]): VcpuResult {
    this.memories = memories;
    const { id, cpus, rounds, entry } = this.data;
    const { engine } = this.rig;
    engine.set(RIP, entry);
    engine.set(RFLAGS, 2);
    engine.set(IDTR_BASE, IDT);
    engine.setGpr(GPR.RDI, BigInt(id));
    engine.setGpr(GPR.RSI, BigInt(rounds));
    engine.setGpr(GPR.RCX, BigInt(cpus));
    engine.setGpr(GPR.RBP, BigInt(DATA));
    engine.setGpr(GPR.RSP, BigInt(AT.STACK_TOP + 0x20000 + id * 0x1000));
    engine.registersChanged();
    for (let reason: number = EXIT.BUDGET; reason !== EXIT.HLT; ) {
      this.serve();
      this.takeInterrupt();
      this.own.running = true;
      const before = engine.retired();
      reason = engine.run(BUDGET, PAUSES);
      this.own.running = false;
      // Neither used up nor asked back: it waits.
      if (reason === EXIT.BUDGET && engine.retired() - before < BUDGET && !this.own.waiting)
        Atomics.wait(NAP, 0, 0, NAP_MS);
      if (reason !== EXIT.HLT && reason !== EXIT.BUDGET && reason !== EXIT.INTERRUPT_WINDOW)
        throw new Error(`vCPU ${id} left with ${reason}`);
    }
    return { rip: Number(engine.get(RIP)), caught: this.rig.caught(), statistics: engine.statistics() };
  }
}

let vcpu: LitmusVcpu | undefined;
parentPort?.on("message", (message: ToVcpu) => {
  if (message.kind === "make") {
    vcpu = new LitmusVcpu(message.data);
    parentPort?.postMessage(vcpu.rig.engine.memory);
  } else parentPort?.postMessage(vcpu?.run(message.memories));
});
