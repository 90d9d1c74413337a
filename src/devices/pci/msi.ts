// MSI with a 64-bit address, several messages and per-vector masks: PCI Local Bus Specification 3.0, 6.8.1 and 6.8.3.
// All of its state is in the capability, so it has no section of its own.

import type { ConfigSpace } from "./config-space.ts";
import type { SendMessage } from "./msix.ts";
import { CAPABILITY, MSI, MSI_CONTROL, MSI_LENGTH } from "./registers.ts";

export class Msi {
  private readonly config: ConfigSpace;
  private readonly capability: number;
  private readonly send: SendMessage;

  /** `vectors` is a power of two up to 32. */
  constructor(config: ConfigSpace, vectors: number, send: SendMessage) {
    this.config = config;
    this.send = send;
    this.capability = config.addCapability(CAPABILITY.MSI, MSI_LENGTH, MSI);
    const capable = Math.log2(vectors) << MSI_CONTROL.MULTIPLE_MESSAGE_CAPABLE;
    config.initialize(MSI.CONTROL, capable | MSI_CONTROL.ADDRESS_64 | MSI_CONTROL.MASKING, this.capability);
  }

  get capabilityRange(): { offset: number; length: number } {
    return { offset: this.capability, length: MSI_LENGTH };
  }

  get enabled(): boolean {
    return (this.get(MSI.CONTROL) & MSI_CONTROL.ENABLE) !== 0;
  }

  /** The device's event. A function that was given fewer messages than it has uses the ones it was given (6.8.3.1). */
  signal(vector: number): void {
    if (!this.enabled) return;
    const granted = this.granted();
    const message = vector & (granted - 1);
    if (((this.get(MSI.MASK) >>> message) & 1) !== 0 || !this.sendMessage(message, granted)) {
      this.config.set(MSI.PENDING, this.get(MSI.PENDING) | (1 << message), this.capability);
    }
  }

  deliverPending(): void {
    if (!this.enabled) return;
    const granted = this.granted();
    let pending = this.get(MSI.PENDING);
    for (let message = 0; message < granted; message++) {
      const bit = 1 << message;
      if ((pending & bit) === 0 || (this.get(MSI.MASK) & bit) !== 0) continue;
      if (this.sendMessage(message, granted)) pending &= ~bit;
    }
    this.config.set(MSI.PENDING, pending, this.capability);
  }

  private get(register: (typeof MSI)[keyof typeof MSI]): number {
    return this.config.get(register, this.capability);
  }

  /** Never more than the function asked for, whatever was written (values 6 and 7 are reserved). */
  private granted(): number {
    const control = this.get(MSI.CONTROL);
    const enable = (control >> MSI_CONTROL.MULTIPLE_MESSAGE_ENABLE) & 7;
    const capable = (control >> MSI_CONTROL.MULTIPLE_MESSAGE_CAPABLE) & 7;
    return 1 << Math.min(enable, capable);
  }

  /** The low bits of the data select the message. */
  private sendMessage(message: number, granted: number): boolean {
    const data = (this.get(MSI.DATA) & ~(granted - 1)) | message;
    return this.send(this.get(MSI.ADDRESS_LOW), this.get(MSI.ADDRESS_HIGH), data);
  }
}
