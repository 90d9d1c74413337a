// What a long run says while it goes on, and what it keeps of a failure.

const TAIL = 3000;

export interface Failure {
  /** Which boot or machine, with the seed that makes it again. */
  readonly what: string;
  readonly wrong: readonly string[];
  readonly state: string | undefined;
  readonly console: string;
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function tell(failure: Failure): void {
  say(`FAILED ${failure.what}`);
  for (const line of failure.wrong) say(`  ${line}`);
  if (failure.state !== undefined) say(failure.state);
  say(`the console's end:\n${failure.console.slice(-TAIL)}`);
}

export function secondsText(all: readonly number[]): string {
  const sorted = all.toSorted((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
  return `${at(0)} / ${at(0.5)} / ${at(1)} s (least, median, most)`;
}
