// What a virtio device is, apart from the transport that carries it: VIRTIO 1.2, chapter 2.

import type { AccessSize } from "../../vmm/bus.ts";
import type { Stateful } from "../../vmm/state.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** What a device may ask of its transport. */
export interface VirtioHost {
  /** Lets the device serve a queue, if the driver has set it up: the host has something for the guest. */
  serve(queue: number): void;
  /** The device's configuration space changed by itself (2.5). */
  configChanged(): void;
  /** Is a feature bit (0 to 31) in use? */
  negotiated(feature: number): boolean;
  /** The driver broke the protocol: stops the device until it is reset (2.1.2). */
  fail(what: string): void;
  anomaly(what: string): void;
}

export interface VirtioDevice extends Stateful {
  /** Device ID, chapter 5. */
  readonly deviceId: number;
  readonly pciClass: number;
  /** Device-specific feature bits, all below 24 (2.2). */
  readonly features: number;
  /** Largest size of each queue; powers of two. */
  readonly queueSizes: readonly number[];
  readonly configLength: number;
  attach(host: VirtioHost): void;
  readConfig(offset: number, size: AccessSize): number;
  writeConfig(offset: number, size: AccessSize, value: number): void;
  /** Takes chains of a queue with `pop` and gives them back with `push`, until `pop` gives none. */
  serve(index: number, queue: Virtqueue): void;
  /** The driver reset the device (2.4). */
  reset(): void;
}
