// The vCPUs of a machine that have a thread each, from the thread that runs the devices: it answers their accesses, makes them stand still and
// go on, asks them for their state. While it waits for them it goes on answering, so that none of them can hold it up (TRAPS 16).

import type { InitialCpuState } from "../../boot/cpu-state.ts";
import { CodePages } from "../../cpu/code-pages.ts";
import { codeMapOffset, newCpuMemory } from "../../cpu/engine.ts";
import { apicIdOf } from "../../cpu/topology.ts";
import { SkepError } from "../../errors.ts";
import type { Host } from "../../host/host.ts";
import { MailboxBell, type MailboxReceiver } from "../../host/mailbox.ts";
import type { RegisterBank } from "../../vmm/bus.ts";
import type { HostClock } from "../../vmm/clock.ts";
import { ApicMode, x2apicLogicalId } from "../../vmm/io/destination.ts";
import type { InterruptRouter } from "../../vmm/io/interrupt-router.ts";
import type { CodeKeeper, GuestRam } from "../../vmm/memory.ts";
import { ControlArea, ENDED, GLOBAL, PHASE, REQUEST, RUN_STATE, VCPU } from "../../vmm/parallel/control-area.ts";
import { ExitReceiver, type ExitServer } from "../../vmm/parallel/exit-channel.ts";
import { setKnown, setUsual } from "../../vmm/parallel/known-ports.ts";
import { PostedWrites } from "../../vmm/parallel/posted-writes.ts";
import { registerBank } from "../../vmm/parallel/register-banks.ts";
import { RemoteApic } from "../../vmm/parallel/remote-apic.ts";
import { CodeWrites } from "../../vmm/parallel/shared-code.ts";
import { spinPause } from "../../vmm/parallel/spin.ts";
import { CALL, callDone, callResult, startCall } from "../../vmm/parallel/vcpu-call.ts";
import { allDeaf, STARTS, type VcpuLink } from "../../vmm/parallel/vcpu-link.ts";
import { StateError } from "../../vmm/state.ts";
import type { Vcpu } from "../../vmm/vcpu.ts";
import type { RunOutcome, Vm } from "../../vmm/vm.ts";
import type { MachineConfig } from "../config.ts";
import { checkCount, noSuchVcpu, type Processors, saveVcpu, type VcpuSections } from "../processors.ts";
import type { VcpuThreadParts } from "../protocol.ts";
import { NO_VCPU_STATISTICS } from "../statistics.ts";
import { answerVcpu, type VcpuAnswer, type VcpuRequest } from "../vcpu-control.ts";
import { UnstartedVcpus } from "./unstarted-vcpu.ts";
import { type ThreadAnswer, type ThreadRestore, type ThreadStatistics, vcpuLinks } from "./vcpu-links.ts";

/** What the group needs of the thread that it is on. */
export interface GroupThreads {
  readonly clock: HostClock;
  readonly mailbox: MailboxReceiver;
  /** Shared memory of the mailbox, whose doorbell the vCPUs ring. */
  readonly mailboxMemory: SharedArrayBuffer;
  readonly engineModule: WebAssembly.Module;
  /** Starts the thread of a vCPU. */
  spawn(parts: VcpuThreadParts): void;
}

export interface VcpuGroupOptions {
  readonly config: MachineConfig;
  readonly host: Host;
  /** The devices' timers; it has no vCPU. */
  readonly vm: Vm;
  readonly router: InterruptRouter;
  readonly memory: GuestRam;
  readonly server: ExitServer;
  /** The edge-triggered vector whose EOI the server wants to know of, or -1. */
  watchedVector(): number;
  readonly threads: GroupThreads;
}

/** So long the thread looks out for more after it has answered something, before it sleeps. */
const LOOKOUT_NS = 30_000;
const LOOKS_BETWEEN_CLOCKS = 8;
/** Waits are looked into again after so long, in case that something went wrong. */
const WAIT_MS = 100;
/** So many such waits vCPUs have to come to their end. */
const END_WAITS = 20;

export class VcpuGroup implements Processors, CodeKeeper {
  readonly parallel = true;
  readonly apicIds: readonly number[];
  private readonly options: VcpuGroupOptions;
  private readonly area: ControlArea;
  private readonly memories: readonly WebAssembly.Memory[];
  private readonly links: readonly VcpuLink[];
  private readonly receivers: readonly ExitReceiver[];
  private readonly postedWrites: PostedWrites;
  private readonly writes: CodeWrites;
  private readonly codePages: CodePages;
  /** By vCPU: its thread has been asked for. */
  private readonly spawned: boolean[];
  /** Answers for those whose thread has not been asked for. */
  private readonly unstarted: UnstartedVcpus;
  /** By vCPU: when it was last reset, until it has a thread. */
  private readonly resetAt: number[];
  /** Threads have been asked for that may not be there yet. */
  private starting = false;
  /** By vCPU: it waits for an answer. */
  private readonly waiting: boolean[] = [];
  /** The last time something was served there was an answer to give. */
  private answered = false;

  constructor(options: VcpuGroupOptions) {
    const { config, host, router, memory, threads } = options;
    this.options = options;
    this.apicIds = Array.from({ length: config.cpus }, (_, id) => apicIdOf(config.topology, id));
    this.area = new ControlArea(config.cpus);
    this.memories = this.apicIds.map(() => newCpuMemory());
    this.links = vcpuLinks(this.area, this.memories, new MailboxBell(threads.mailboxMemory));
    this.receivers = this.links.map((link) => new ExitReceiver(link));
    this.postedWrites = new PostedWrites(this.links);
    this.writes = new CodeWrites(this.links);
    this.codePages = new CodePages(memory.memory, codeMapOffset(memory.bytes));
    this.spawned = this.apicIds.map(() => false);
    this.resetAt = this.apicIds.map(() => 0);
    this.unstarted = new UnstartedVcpus({ config, host, clock: threads.clock, memory });
    this.links.forEach((link, id) => {
      // As it will be handed over, until its thread says so itself.
      link.store(VCPU.APIC_MODE, config.x2apicIds ? ApicMode.X2APIC : ApicMode.XAPIC);
      if (config.x2apicIds) link.store(VCPU.APIC_LDR, x2apicLogicalId(this.apicIds[id]));
      link.store(VCPU.APIC_DFR, -1);
      router.addLocalApic(new RemoteApic(link, this.apicIds[id]));
    });
    router.follow(() => this.area.apicGeneration);
    this.spawn(0);
  }

  get threads(): number {
    return this.spawned.filter((spawned) => spawned).length;
  }

  // ---- Standing still and going on ----

  begin(): void {
    const { base, origin } = this.options.threads.clock.relation;
    this.area.setClock(base, origin);
    this.publishWatched();
    this.setPhase(PHASE.RUN);
  }

  halt(): void {
    this.setPhase(PHASE.PARK);
    this.waitFor(() =>
      this.links.every(
        ({ state }) => state === RUN_STATE.PARKED || state === RUN_STATE.ABSENT || state === RUN_STATE.GONE,
      ),
    );
    // What they posted last, too, is done before the machine stands still.
    while (this.serve());
    this.lookForTripleFault();
  }

  end(): void {
    this.setPhase(PHASE.END);
    let waits = 0;
    this.waitFor(
      () => this.links.every(({ state }, id) => state === RUN_STATE.GONE || !this.spawned[id]) || ++waits > END_WAITS,
    );
  }

  run(poll: () => boolean): RunOutcome {
    const { config, vm, threads } = this.options;
    let lookout = 0;
    for (;;) {
      const bell = threads.mailbox.bell();
      if (this.serve() && this.answered) lookout = threads.clock.now() + LOOKOUT_NS;
      if (this.starting) this.awaitThreads();
      this.lookForTripleFault();
      if (config.onHalt === "end" && allDeaf(this.area, this.links)) vm.end({ reason: "halt" });
      const outcome = vm.run(poll);
      if (outcome.kind !== "idle") return outcome;
      if (poll()) return { kind: "yield" };
      if (!this.rangOrDue(bell, lookout, outcome.wakeAt)) return outcome;
    }
  }

  /** Looks out for the doorbell until virtual time `lookout`: whoever has just asked something often asks again. True also where a timer is due. */
  private rangOrDue(bell: number, lookout: number, due: number): boolean {
    const { mailbox, clock } = this.options.threads;
    for (let looks = 0; mailbox.bell() === bell; looks++) {
      if (looks % LOOKS_BETWEEN_CLOCKS === 0) {
        const now = clock.now();
        if (now >= due) return true;
        if (now >= lookout) return false;
      }
      spinPause();
    }
    return true;
  }

  // ---- State ----

  reset(): void {
    const at = this.options.threads.clock.now();
    this.resetAt.fill(at);
    for (const [id, link] of this.links.entries()) {
      if (this.spawned[id]) this.call(id, CALL.RESET, at);
      else link.takeRequests();
    }
    Atomics.store(this.area.words, GLOBAL.ENDED, ENDED.NO);
    this.options.vm.reset();
  }

  boot(state: InitialCpuState): void {
    this.call(0, CALL.BOOT, state);
  }

  statistics(): readonly ThreadStatistics[] {
    return this.links.map((_, id) =>
      this.spawned[id]
        ? (this.call(id, CALL.STATISTICS) as ThreadStatistics)
        : { vcpu: NO_VCPU_STATISTICS, anomalies: {} },
    );
  }

  answer(cpu: number, request: VcpuRequest): VcpuAnswer {
    const link = this.links[cpu];
    if (link === undefined) throw noSuchVcpu(cpu, this.links.length);
    if (!this.spawned[cpu]) {
      // Held until it is started, as where it waits for that on a thread.
      if (request.what === "nmi") {
        link.post(REQUEST.NMI);
        return { done: true };
      }
      if (request.what !== "set-registers") return answerVcpu(this.makeUnstarted(cpu), request);
    }
    const result = this.call(cpu, CALL.CONTROL, request) as ThreadAnswer;
    if ("refused" in result) throw new SkepError(result.code, result.refused);
    return result.answer;
  }

  save(): readonly VcpuSections[] {
    const { links, spawned } = this;
    for (;;) {
      const saved = links.map((_, id) => (spawned[id] ? (this.call(id, CALL.SAVE) as VcpuSections) : undefined));
      // A level that its local APIC refused goes back to the I/O APIC, which may send it to one that has been saved.
      while (this.serve());
      const settled = links.every((link, id) =>
        saved[id] === undefined ? !spawned[id] : (link.load(VCPU.REQUESTS) & ~REQUEST.ORDER) === 0,
      );
      if (settled) return saved.map((sections, id) => sections ?? saveVcpu(this.makeUnstarted(id)));
    }
  }

  restore(sections: readonly VcpuSections[], time: number): void {
    checkCount(sections, this.links.length);
    sections.forEach((section, id) => {
      if (!this.spawned[id]) {
        const resetAt = this.unstarted.restore(this.links[id], section);
        if (resetAt !== undefined) {
          this.resetAt[id] = resetAt;
          return;
        }
      }
      try {
        this.call(id, CALL.RESTORE, { sections: section, time } satisfies ThreadRestore);
      } catch (error) {
        // What a thread tells of a failure is its message alone.
        throw new StateError(error instanceof Error ? error.message : String(error), { cause: error });
      }
    });
  }

  portIsUsual(position: number, usual: boolean): void {
    setUsual(this.area, position, usual);
  }

  portReads(index: number, value: number | undefined): void {
    setKnown(this.area, index, value);
  }

  registerBank(bank: number): RegisterBank {
    return registerBank(this.area, bank);
  }

  // ---- What devices write to memory ----

  memoryWritten(host: number, length: number): void {
    this.codePages.written(host, length, (at, bytes) => this.writes.post(at, bytes));
  }

  protectPage(): void {}

  codeWritten(): void {}

  // ---- Threads ----

  private makeUnstarted(id: number): Vcpu {
    return this.unstarted.make(this.links[id], this.resetAt[id]);
  }

  private spawn(id: number): void {
    if (this.spawned[id]) return;
    this.spawned[id] = true;
    this.starting = true;
    const { threads, memory } = this.options;
    threads.spawn({
      id,
      resetAt: this.resetAt[id],
      control: this.area.memory,
      mailbox: threads.mailboxMemory,
      ram: memory.memory,
      memories: this.memories,
      engineModule: threads.engineModule,
    });
  }

  /**
   * The guest's time stands still until they are there: how long the host takes to start a thread depends on what else it does, and guests
   * give up a processor that does not come.
   */
  private awaitThreads(): void {
    const { clock } = this.options.threads;
    this.halt();
    clock.stop();
    this.waitFor(() => this.links.every(({ state }, id) => state !== RUN_STATE.ABSENT || !this.spawned[id]));
    this.starting = false;
    clock.start();
    this.begin();
  }

  /** The one end that a vCPU alone can make. */
  private lookForTripleFault(): void {
    if (Atomics.load(this.area.words, GLOBAL.ENDED) === ENDED.TRIPLE_FAULT)
      this.options.vm.end({ reason: "triple-fault" });
  }

  private setPhase(phase: number): void {
    this.area.setPhase(phase);
    for (const link of this.links) link.order();
  }

  /** Answers what vCPUs wait for; true if there was anything. */
  private serve(): boolean {
    const { server, vm } = this.options;
    const { links, receivers, spawned, waiting } = this;
    let any = false;
    this.answered = false;
    for (let id = 0; id < links.length; id++) {
      waiting[id] = spawned[id] && receivers[id].waiting;
      if (!spawned[id] && links[id].load(VCPU.REQUESTS) & STARTS) this.spawn(id);
    }
    // What any vCPU posted before one of these accesses began comes before it.
    if (this.postedWrites.take(server.io)) any = true;
    for (let id = 0; id < links.length; id++) if (spawned[id] && receivers[id].takeNews(server)) any = true;
    for (let id = 0; id < links.length; id++) {
      if (!waiting[id]) continue;
      any = true;
      this.answered = true;
      if (vm.ended === undefined) receivers[id].serve(server);
      else receivers[id].dismiss();
    }
    if (any) this.publishWatched();
    return any;
  }

  /** Before this thread sends another interrupt: nobody can have an EOI of one that was not sent. */
  private publishWatched(): void {
    Atomics.store(this.area.words, GLOBAL.WATCHED_VECTOR, this.options.watchedVector());
  }

  /** Waits, and answers meanwhile. */
  private waitFor(done: () => boolean): void {
    const { mailbox } = this.options.threads;
    for (;;) {
      const bell = mailbox.bell();
      const served = this.serve();
      if (done()) return;
      if (!served) mailbox.wait(bell, WAIT_MS);
    }
  }

  private call(id: number, call: number, argument?: unknown): unknown {
    this.spawn(id);
    const link = this.links[id];
    startCall(link, call, argument);
    this.waitFor(() => callDone(link));
    return callResult(link);
  }
}
