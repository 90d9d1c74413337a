// One vCPU of a machine with a thread a vCPU, as every thread sees it: where it is, and how to ask something of it. Who posts changes the
// request word first and looks where the vCPU is then; the vCPU says where it goes first and looks at the request word then. All of it is
// sequentially consistent, so at least one of the two sees the other, and no wake-up is lost (REQUIREMENTS 21, 39; TRAPS 9a).

import {
  type ControlArea,
  type Doorbell,
  GLOBAL,
  type Kick,
  REQUEST,
  RUN_STATE,
  STARTUP_VECTOR_SHIFT,
  VCPU,
} from "./control-area.ts";

/** What a vCPU without a thread gets one for. */
export const STARTS = REQUEST.INIT | REQUEST.STARTUP;
/** What an INIT drops of what was posted before it. Interrupts for the local APIC are taken before the INIT, which resets it. */
const DROPPED_BY_INIT = REQUEST.NMI | REQUEST.STARTUP | (0xff << STARTUP_VECTOR_SHIFT);

export class VcpuLink {
  readonly id: number;
  readonly area: ControlArea;
  readonly words: Int32Array;
  /** Index of the vCPU's block. */
  readonly at: number;
  private readonly kick: Kick;
  private readonly bell: Doorbell;
  /** The state that this thread, if it is the vCPU's, has entered last. */
  private entered = -1;

  constructor(area: ControlArea, id: number, kick: Kick, bell: Doorbell) {
    this.id = id;
    this.area = area;
    this.words = area.words;
    this.at = area.block(id);
    this.kick = kick;
    this.bell = bell;
  }

  load(word: number): number {
    return Atomics.load(this.words, this.at + word);
  }

  store(word: number, value: number): void {
    Atomics.store(this.words, this.at + word, value);
  }

  get state(): number {
    return this.load(VCPU.RUN_STATE);
  }

  // ---- Any thread's side ----

  /** Posts what the bits say; the vCPU takes it before it executes more. What the bits announce has been written before. */
  post(requests: number): void {
    this.announce(requests, Atomics.or(this.words, this.at + VCPU.REQUESTS, requests));
  }

  /** Pending events do not outlive an INIT (SDM Vol. 3C 26.2, INIT signals); what is posted after it does. */
  postInit(): void {
    this.announce(
      REQUEST.INIT,
      this.changeRequests((requests) => (requests & ~DROPPED_BY_INIT) | REQUEST.INIT),
    );
  }

  /** The first start-up IPI ends the wait for one; those that come after it are ignored (SDM Vol. 3A 9.4.3), whether it was taken already or not. */
  postStartup(vector: number): void {
    const startup = REQUEST.STARTUP | (vector << STARTUP_VECTOR_SHIFT);
    this.announce(
      REQUEST.STARTUP,
      this.changeRequests((requests) => (requests & REQUEST.STARTUP ? requests : requests | startup)),
    );
  }

  /** Gives the request word as it was. */
  private changeRequests(changed: (requests: number) => number): number {
    const word = this.at + VCPU.REQUESTS;
    for (let before = Atomics.load(this.words, word); ; ) {
      const found = Atomics.compareExchange(this.words, word, before, changed(before));
      if (found === before) return before;
      before = found;
    }
  }

  /** Makes the vCPU look, if what was posted is not what it knows of. */
  private announce(requests: number, before: number): void {
    const { state } = this;
    // Whoever set the same bits before wakes it for them. That kick may still be on its way, though, and what the guest does next must not be seen
    // before that its code was changed.
    const known = (before & requests) === requests;
    if (state === RUN_STATE.RUNNING && (!known || (requests & REQUEST.CODE) !== 0)) this.kick();
    if (known) return;
    switch (state) {
      case RUN_STATE.ASLEEP:
      case RUN_STATE.DEAF:
        Atomics.notify(this.words, this.at + VCPU.REQUESTS);
        break;
      case RUN_STATE.ABSENT:
        // The devices' thread sees to it that it gets a thread.
        if (requests & STARTS) this.bell.ring();
        break;
    }
  }

  /** An order of the machine's thread: also seen by a vCPU that is parked. */
  order(): void {
    Atomics.add(this.words, this.at + VCPU.ORDERS, 1);
    Atomics.notify(this.words, this.at + VCPU.ORDERS);
    this.post(REQUEST.ORDER);
  }

  // ---- The vCPU's thread ----

  enter(state: number): void {
    if (state === this.entered) return;
    this.entered = state;
    this.store(VCPU.RUN_STATE, state);
  }

  /** Whether anything has been posted. */
  get requested(): boolean {
    return this.load(VCPU.REQUESTS) !== 0;
  }

  takeRequests(): number {
    // Not read first: a cache line that is to be written costs less to get at once.
    return Atomics.exchange(this.words, this.at + VCPU.REQUESTS, 0);
  }

  /** Sleeps, halted, until something is posted, at most so long. */
  sleep(milliseconds: number, deaf: boolean): void {
    this.enter(deaf ? RUN_STATE.DEAF : RUN_STATE.ASLEEP);
    // The machine has ended where all are deaf, which only the devices' thread can see.
    if (deaf) this.bell.ring();
    Atomics.wait(this.words, this.at + VCPU.REQUESTS, 0, milliseconds);
    if (deaf) Atomics.add(this.words, GLOBAL.WAKES, 1);
    this.enter(RUN_STATE.LOOKING);
  }

  /** Stands still until there is an order after the one that was counted as `orders`. */
  park(orders: number): void {
    this.enter(RUN_STATE.PARKED);
    this.bell.ring();
    Atomics.wait(this.words, this.at + VCPU.ORDERS, orders);
    this.enter(RUN_STATE.LOOKING);
  }

  get orders(): number {
    return this.load(VCPU.ORDERS);
  }
}

/** Whether all vCPUs are asleep in a way that only another vCPU could end: nobody left DEAF while they were looked at. */
export function allDeaf(area: ControlArea, links: readonly VcpuLink[]): boolean {
  const wakes = Atomics.load(area.words, GLOBAL.WAKES);
  return (
    links.every(({ state }) => state === RUN_STATE.DEAF || state === RUN_STATE.ABSENT) &&
    links.every((link) => (link.load(VCPU.REQUESTS) & (link.state === RUN_STATE.ABSENT ? STARTS : -1)) === 0) &&
    Atomics.load(area.words, GLOBAL.WAKES) === wakes
  );
}
