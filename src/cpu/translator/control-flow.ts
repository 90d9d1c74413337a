// From a control-flow graph with several entries to WebAssembly's structured control flow: loops with more than one entry get a node that
// dispatches on a variable, then the dominator tree gives blocks and loops
// (N. Ramsey, "Beyond Relooper: recursive translation of unstructured control flow to structured control flow", ICFP 2022).

import type { Code, Label, Local } from "../../wasm/code.ts";

/** A transfer from one node to another. Node numbers of the graph are those of its owner; dispatch nodes are added behind them. */
export interface Edge {
  readonly from: number;
  to: number;
  /** Where `to` is a dispatch node: which of its targets is meant. */
  choice: number;
}

/** A node that continues at one of several, by the value of its variable. The variable is 0 for the first, and otherwise set just before. */
interface Dispatch {
  readonly node: number;
  readonly edges: Edge[];
}

export interface Body {
  /** Writes a node's code and its transfers: each by calling `go` where it leaves, on every path. */
  emit(node: number, go: (edge: Edge) => void): void;
}

export class ControlFlow {
  private readonly edges: Edge[] = [];
  private readonly dispatches = new Map<number, Dispatch>();
  private count: number;
  private readonly root: Dispatch;
  private order: number[] = [];
  private position: number[] = [];
  private readonly children: number[][] = [];
  /** Edges to each node, once cycles have a single entry. */
  private incoming: Edge[][] = [];
  private readonly loopHeads = new Set<number>();
  private readonly merges = new Set<number>();

  /** A graph of nodes 0 to count - 1, entered at one of `entries`. */
  constructor(count: number, entries: readonly number[]) {
    this.count = count;
    this.root = this.newDispatch();
    entries.forEach((entry) => {
      this.root.edges.push(this.connect(this.root.node, entry));
    });
  }

  private newDispatch(): Dispatch {
    const dispatch = { node: this.count++, edges: [] };
    this.dispatches.set(dispatch.node, dispatch);
    return dispatch;
  }

  connect(from: number, to: number): Edge {
    const edge = { from, to, choice: 0 };
    this.edges.push(edge);
    return edge;
  }

  /** Gives every cycle a single entry. */
  private makeReducible(nodes: ReadonlySet<number>): void {
    for (const component of stronglyConnected(nodes, this.edges)) {
      const inside = new Set(component);
      const internal = this.edges.filter((edge) => inside.has(edge.from) && inside.has(edge.to));
      if (internal.length === 0) continue;
      const heads = [
        ...new Set(this.edges.filter((edge) => inside.has(edge.to) && !inside.has(edge.from)).map((edge) => edge.to)),
      ];
      // The first in the order of a walk from the entries is what ordinary code falls into.
      const order = this.walk();
      heads.sort((a, b) => order[a] - order[b]);
      const [head, ...others] = heads;
      inside.delete(head);
      if (others.length > 0) {
        const dispatch = this.newDispatch();
        for (const edge of this.edges) {
          const choice = edge.to === head ? 0 : others.indexOf(edge.to) + 1;
          if (edge.to !== head && (choice === 0 || inside.has(edge.from) || edge.from === head)) continue;
          edge.to = dispatch.node;
          edge.choice = choice;
        }
        for (const target of heads) dispatch.edges.push(this.connect(dispatch.node, target));
        inside.add(head);
      }
      this.makeReducible(inside);
    }
  }

  /** Position of each node in reverse postorder from the root; nodes that cannot be reached have none. */
  private walk(): number[] {
    const successors: number[][] = Array.from({ length: this.count }, () => []);
    for (const edge of this.edges) successors[edge.from].push(edge.to);
    const seen = new Set<number>([this.root.node]);
    const postorder: number[] = [];
    const stack: { node: number; next: number }[] = [{ node: this.root.node, next: 0 }];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const successor = successors[top.node][top.next++];
      if (successor === undefined) {
        postorder.push(top.node);
        stack.pop();
      } else if (!seen.has(successor)) {
        seen.add(successor);
        stack.push({ node: successor, next: 0 });
      }
    }
    this.order = postorder.toReversed();
    const position: number[] = new Array(this.count).fill(-1);
    this.order.forEach((node, i) => {
      position[node] = i;
    });
    this.position = position;
    return position;
  }

  /** Immediate dominators (K. Cooper, T. Harvey, K. Kennedy, "A Simple, Fast Dominance Algorithm", 2001). */
  private findDominators(): void {
    this.walk();
    const { order, position } = this;
    const predecessors: number[][] = Array.from({ length: this.count }, () => []);
    for (const edge of this.edges) if (position[edge.from] >= 0) predecessors[edge.to].push(edge.from);
    const dominator: number[] = new Array(this.count).fill(-1);
    dominator[this.root.node] = this.root.node;
    const meet = (first: number, second: number): number => {
      let a = first;
      let b = second;
      while (a !== b) {
        while (position[a] > position[b]) a = dominator[a];
        while (position[b] > position[a]) b = dominator[b];
      }
      return a;
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const node of order) {
        if (node === this.root.node) continue;
        const known = predecessors[node].filter((p) => dominator[p] >= 0);
        const found = known.reduce(meet);
        if (dominator[node] !== found) {
          dominator[node] = found;
          changed = true;
        }
      }
    }
    for (const node of order) this.children[node] = [];
    for (const node of order) if (node !== this.root.node) this.children[dominator[node]].push(node);
    for (const node of order) {
      const forward = predecessors[node].filter((p) => position[p] < position[node]);
      if (forward.length < predecessors[node].length) this.loopHeads.add(node);
      // Targets of dispatch nodes are reached by branches.
      if (forward.length > 1 || forward.some((p) => this.dispatches.has(p))) this.merges.add(node);
    }
  }

  /** Nodes that are loop heads before `emit` has made loops of one entry of all: targets of edges back to what is on the way from an entry. */
  static backEdgeTargets(count: number, entry: number, edges: readonly { from: number; to: number }[]): Set<number> {
    const successors: number[][] = Array.from({ length: count }, () => []);
    for (const edge of edges) successors[edge.from].push(edge.to);
    const state = new Uint8Array(count);
    const heads = new Set<number>();
    for (const start of [entry, ...successors.keys()]) {
      if (state[start] !== 0) continue;
      const stack = [{ node: start, next: 0 }];
      state[start] = 1;
      for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
        const successor = successors[top.node][top.next++];
        if (successor === undefined) {
          state[top.node] = 2;
          stack.pop();
        } else if (state[successor] === 1) heads.add(successor);
        else if (state[successor] === 0) {
          state[successor] = 1;
          stack.push({ node: successor, next: 0 });
        }
      }
    }
    return heads;
  }

  /** Forward predecessors of a node whose code has been written before it, where those are all; undefined where there are others. */
  predecessors(node: number): readonly number[] | undefined {
    if (this.loopHeads.has(node)) return undefined;
    const found = (this.incoming[node] ?? []).filter((edge) => this.position[edge.from] >= 0);
    return found.some((edge) => this.dispatches.has(edge.from)) ? undefined : found.map((edge) => edge.from);
  }

  /** Writes the graph, starting at the entry whose number is in `entry`. */
  emit(c: Code, entry: Local, body: Body): void {
    this.makeReducible(new Set(Array.from({ length: this.count }, (_, node) => node)));
    this.findDominators();
    this.incoming = Array.from({ length: this.count }, () => []);
    for (const edge of this.edges) this.incoming[edge.to].push(edge);
    const variables = new Map<number, Local>([[this.root.node, entry]]);
    for (const node of this.dispatches.keys())
      if (node !== this.root.node && this.position[node] >= 0) variables.set(node, c.local("i32", 0));
    const labels = new Map<number, Label>();
    const heads = new Map<number, Label>();

    const go = (edge: Edge): void => {
      const { to } = edge;
      if (edge.choice !== 0) c.set(variables.get(to) as Local, edge.choice);
      const back = this.position[to] <= this.position[edge.from];
      if (back) c.br(heads.get(to) as Label);
      else if (this.merges.has(to)) c.br(labels.get(to) as Label);
      else tree(to);
    };
    const dispatch = ({ node, edges }: Dispatch): void => {
      const variable = variables.get(node) as Local;
      if (node === this.root.node && edges.length === 1) {
        go(edges[0]);
        return;
      }
      if (node !== this.root.node) {
        c.if(
          variable,
          () => undefined,
          () => go(edges[0]),
          "unlikely",
        );
      }
      const chosen = node === this.root.node ? variable : c.let(variable);
      if (node !== this.root.node) c.set(variable, 0);
      // Every target is a merge, or a dispatch node that must be told which of its own targets is meant.
      c.switch(
        chosen,
        edges.slice(0, -1).map((edge, n) => [[n], () => go(edge)]),
        () => go(edges[edges.length - 1]),
      );
    };
    const within = (node: number, merges: readonly number[]): void => {
      if (merges.length === 0) {
        const found = this.dispatches.get(node);
        if (found === undefined) body.emit(node, go);
        else dispatch(found);
        return;
      }
      const [last, ...rest] = merges;
      c.block((label) => {
        labels.set(last, label);
        within(node, rest);
      });
      tree(last);
    };
    const tree = (node: number): void => {
      const merges = this.children[node].filter((child) => this.merges.has(child));
      merges.sort((a, b) => this.position[b] - this.position[a]);
      if (this.loopHeads.has(node)) {
        c.loop((head) => {
          heads.set(node, head);
          within(node, merges);
        });
      } else within(node, merges);
    };
    tree(this.root.node);
    c.unreachable();
  }
}

/** Strongly connected components (Tarjan), without those of a single node that has no edge to itself. */
function stronglyConnected(nodes: ReadonlySet<number>, edges: readonly Edge[]): number[][] {
  const successors = new Map<number, number[]>();
  for (const node of nodes) successors.set(node, []);
  const loops = new Set<number>();
  for (const edge of edges) {
    if (!nodes.has(edge.from) || !nodes.has(edge.to)) continue;
    if (edge.from === edge.to) loops.add(edge.from);
    successors.get(edge.from)?.push(edge.to);
  }
  const index = new Map<number, number>();
  const low = new Map<number, number>();
  const onStack = new Set<number>();
  const pending: number[] = [];
  const components: number[][] = [];
  for (const start of nodes) {
    if (index.has(start)) continue;
    const stack = [{ node: start, next: 0 }];
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const { node } = top;
      if (top.next === 0) {
        index.set(node, index.size);
        low.set(node, index.get(node) as number);
        pending.push(node);
        onStack.add(node);
      }
      const successor = (successors.get(node) as number[])[top.next++];
      if (successor !== undefined) {
        if (!index.has(successor)) stack.push({ node: successor, next: 0 });
        else if (onStack.has(successor))
          low.set(node, Math.min(low.get(node) as number, index.get(successor) as number));
        continue;
      }
      stack.pop();
      const parent = stack.at(-1);
      if (parent !== undefined) low.set(parent.node, Math.min(low.get(parent.node) as number, low.get(node) as number));
      if (low.get(node) !== index.get(node)) continue;
      const component: number[] = [];
      for (let member = pending.pop() as number; ; member = pending.pop() as number) {
        onStack.delete(member);
        component.push(member);
        if (member === node) break;
      }
      if (component.length > 1 || loops.has(node)) components.push(component);
    }
  }
  return components;
}
