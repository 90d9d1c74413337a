// How processors are grouped, and the APIC ids that follow: threads in the lowest bits, cores above them, sockets above those, each field as
// wide as it needs to be (SDM Vol. 3A 9.9, "Programming considerations for hardware multi-threading capable processors"; CPUID leaf 0BH).

export interface CpuTopology {
  readonly sockets: number;
  /** A socket's. */
  readonly cores: number;
  /** A core's. */
  readonly threads: number;
}

/** Bits that number `count` things. */
export function idWidth(count: number): number {
  return count <= 1 ? 0 : Math.ceil(Math.log2(count));
}

/** The x2APIC id of logical processor `n`; processors are numbered threads first. */
export function apicIdOf({ cores, threads }: CpuTopology, n: number): number {
  const thread = n % threads;
  const core = Math.floor(n / threads) % cores;
  const socket = Math.floor(n / (threads * cores));
  const threadBits = idWidth(threads);
  return (socket << (idWidth(cores) + threadBits)) | (core << threadBits) | thread;
}
