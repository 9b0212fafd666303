// A WebSocket to cluster_pool that comes back by itself. It speaks the subprotocol cluster-pool.v1.
//   const socket = new ClusterSocket("/ws/lobby", { token: async () => (await fetch("/token")).text() });
//   socket.on("room:7", ({ data, from }) => show(from?.user, data));  // data: a string or a Uint8Array
//   socket.onlost = ({ ns }) => reload(ns);                           // messages may be missing
//   await socket.join("room:7", { info: { name: "Alice" } }), await socket.publish("room:7", "hello");
// Events, for addEventListener or onopen = …: open {id, ns, user, again}, lost {ns}, left {ns, cause},
// message {ns, data, from, position}, close {code, reason, final, delay}. A handler may throw.
const BASE = 500, CAP = 30_000, STOOD = 10_000;  // ms: the backoff; a connection that stood so long resets it
const V1 = "cluster-pool.v1", HANDSHAKE = 30_000, PROBE = 5_000, SOON = 5_000, LATE = 86_400_000;  // ms
const AT_ONCE = { 1012: 5, 4401: 1 };            // codes with no delay, so many times in a row
const PASSING = ["draining", "unavailable", "rate", "closing", "expired"];  // rejoin later
const base64 = bytes => btoa([...bytes].map(byte => String.fromCharCode(byte)).join(""));
const content = data => typeof data === "string" ? { m: data } : { b: base64(data) };
const isBehind = ([epoch, number], [other, last]) => epoch === other && +number <= +last;
const dataOf = ({ m, b }) => b === undefined ? m : Uint8Array.from(atob(b), one => one.charCodeAt(0));
// A promise; hands out the function that settles it by an answer of the server.
const promised = handOut => new Promise((resolve, reject) => handOut(answer => answer.ok ? resolve(answer)
    : reject(Object.assign(new Error(answer.reason || answer.error), { code: answer.error }))));

export class ClusterSocket extends EventTarget {
    isOpen = false; isFinal = false;
    #ws; #attempt; #attempts = 0; #token; #ended = new AbortController();
    #retry; #deadline; #renewal; #stood;         // timers
    #waiting = []; #requests = new Map(); #ref = 0;  // what settles promises: of a connection; of refs
    #rooms = new Map(); #info;                   // joined namespace → info; the info of home
    #past = new Map(); #had = new Map();         // with a history: { resume, since }; since then away
    // token: a string, or an async function that gets one. final: codes it also stays away after.
    constructor(url, { token, final = [] } = {}) {
        super();
        Object.assign(this, { url, token, final: [1000, 4409, ...final] });
        for (const type of ["open", "message", "lost", "left", "close"])
            this.addEventListener(type, event => this["on" + type]?.(event));
        globalThis.addEventListener("online", this.#wake, this.#ended);
        globalThis.document?.addEventListener("visibilitychange", this.#wake, this.#ended);
        this.#connect();
    }
    on(ns, handler) { this.addEventListener("message:" + ns, handler); }
    off(ns, handler) { this.removeEventListener("message:" + ns, handler); }
    // join, leave and info wait for a connection. A promise is rejected with an error.code: the server's, or
    // "closed" if the connection ends before the answer. What was joined is joined again after a reconnect.
    async join(ns, { info } = {}) {
        this.#keep(ns, await this.#request({ join: ns, info }, true)), this.#rooms.set(ns, info);
    }
    async leave(ns) { await this.#request({ leave: ns }, true).finally(() => this.#rooms.delete(ns)); }
    async info(info, ns) {                       // what others see of this member, of its home by default
        await this.#request({ info, ns }, true);
        this.#rooms.has(ns) ? this.#rooms.set(ns, info) : (this.#info = info);
    }
    async publish(ns, data) { await this.#request({ publish: ns, ...content(data) }); }  // never kept
    async renew(token) {                         // happens by itself in time, with a token function
        this.#renewBefore(await this.#request({ renew: this.#token = token ?? await this.token() }));
    }
    close() { if (!this.isFinal) this.#closed(1000, "closed by the page"); }
    async #connect() {
        clearTimeout(this.#retry), this.#expect(HANDSHAKE);
        const attempt = this.#attempt = {}, now = () => attempt === this.#attempt;  // a close ends it
        try {
            const token = this.#token ?? (typeof this.token === "function" ? await this.token() : this.token);
            if (!now()) return;
            const offers = token ? ["cluster-pool.token." + token] : [];
            const past = String(new URLSearchParams(this.#past.get(this.ns))), url = String(this.url);
            for (const [ns, { since }] of this.#past) this.#had.set(ns, since ?? this.#had.get(ns));
            this.#ws = new WebSocket(url + (past && (url.includes("?") ? "&" : "?") + past), [V1, ...offers]);
            this.#ws.onmessage = ({ data }) => now() && this.#received(JSON.parse(data));
            this.#ws.onclose = ({ code, reason }) => now() && this.#closed(code, reason);
            this.#token = token;
        } catch (error) {                        // no token, or one that cannot be offered, and not be told
            if (now()) this.#closed(1006, error?.code === 12 ? "no valid url or token" : String(error));
        }
    }
    #closed(code, reason) {
        for (const timer of [this.#retry, this.#deadline, this.#renewal, this.#stood]) clearTimeout(timer);
        this.#ws?.close();
        if (code === 4401 || !this.isOpen) this.#token = null;  // perhaps it was refused: get another
        this.#attempt = null, this.isOpen = false;
        this.isFinal = this.final.includes(code) || (code === 4401 && typeof this.token !== "function");
        const soon = this.#attempts < AT_ONCE[code], limit = Math.min(CAP, BASE * 2 ** this.#attempts++);
        const delay = this.isFinal ? null : soon ? 0 : Math.random() * limit;
        this.#retry = this.isFinal ? this.#ended.abort() : setTimeout(() => this.#connect(), delay);
        const over = [...this.#requests.values(), ...(this.isFinal ? this.#waiting : [])];
        for (const settle of over) settle({ error: "closed" });
        this.#requests.clear(), this.#emit("close", { code, reason, final: this.isFinal, delay });
    }
    // Online again, or seen again: the page may have slept. Do not wait, nor trust an open connection.
    #wake = ({ type }) => {
        if (type !== "online" && document.hidden) return;
        if (!this.isOpen) return this.#attempt || this.#connect();
        this.#ws.send('{"ref": "probe"}'), this.#expect(PROBE);  // without a verb: answered as invalid
    };
    #expect(ms = 0) {                             // 0: nothing
        clearTimeout(this.#deadline);
        this.#deadline = ms && setTimeout(() => this.#closed(1006, "no answer"), ms);
    }
    #received(frame) {
        const { welcome, ref, left, cause, lost, ns, from, p: position } = frame;
        this.#expect(this.#requests.size > this.#requests.has(ref) ? HANDSHAKE : 0);
        if (welcome) this.#welcomed(welcome);
        else if (ref !== undefined) this.#requests.get(ref)?.(frame), this.#requests.delete(ref);
        else if (left !== undefined) this.#rooms.delete(left), this.#emit("left", { ns: left, cause });
        else if (lost !== undefined) this.#emit("lost", { ns: lost });
        else if (ns !== undefined && !this.#has(ns, position))
            for (const type of ["message", "message:" + ns])
                this.#emit(type, { ns, data: dataOf(frame), from, position });
    }
    #has(ns, position) {                         // whether it comes again, after an absence
        const past = position && this.#past.get(ns), had = this.#had.get(ns);
        if (past && had && isBehind(position.split("."), had.split("."))) return true;
        if (past) this.#had.delete(ns), past.since = position;
    }
    #keep(ns, { resume, recovered }) {           // resume: the word that makes its position count
        const past = this.#past.get(ns), since = (recovered || resume === past?.resume) && past?.since;
        resume ? this.#past.set(ns, since ? { resume, since } : { resume }) : this.#past.delete(ns);
        return recovered;
    }
    #welcomed({ id, ns, user, expires, resume, recovered }) {
        const again = this.id !== undefined;
        Object.assign(this, { id, ns, user, isOpen: true });
        this.#stood = setTimeout(() => this.#attempts = 0, STOOD);
        this.#renewBefore({ expires }), this.#keep(ns, { resume, recovered });
        for (const room of [undefined, ...this.#rooms.keys()]) this.#rejoin(room, this.#attempt);
        for (const settle of this.#waiting.splice(0)) settle({ ok: true });
        this.#emit("open", { id, ns, user, again });
        if (again && this.isOpen && !recovered) this.#emit("lost", { ns });  // gaps of positions are none
    }
    #rejoin(ns, attempt) {                       // without ns: tell the info of home again
        const home = ns === undefined, info = home ? this.#info : this.#rooms.get(ns);
        if (attempt !== this.#attempt || (home ? info === undefined : !this.#rooms.has(ns))) return;
        const frame = home ? { info } : { join: ns, info, ...this.#past.get(ns) };
        this.#request(frame).then(a => home || this.#keep(ns, a) || this.#emit("lost", { ns }), error => {
            const { code } = error, ms = 1000 + 4000 * Math.random();
            if (PASSING.includes(code)) setTimeout(() => this.#rejoin(ns, attempt), ms);
            else if (code !== "closed" && !home) this.#received({ left: ns, cause: code });
        });
    }
    #renewBefore({ expires }) {
        clearTimeout(this.#renewal);
        const ms = (expires * 1000 - Date.now()) * (0.7 + 0.2 * Math.random()), attempt = this.#attempt;
        if (!(ms > 0) || typeof this.token !== "function") return;  // a clock that is wrong: wait for 4401
        const again = () => attempt === this.#attempt && this.#renewBefore({ expires });
        this.#renewal = setTimeout(() => this.renew().catch(again), Math.min(Math.max(ms, SOON), LATE));
    }
    async #request(frame, wait = false) {
        if (wait && !this.isOpen && !this.isFinal) await promised(settle => this.#waiting.push(settle));
        if (!this.isOpen) return promised(settle => settle({ error: "closed" }));
        const ref = ++this.#ref; this.#ws.send(JSON.stringify({ ...frame, ref }));
        if (!this.#deadline) this.#expect(HANDSHAKE);
        return promised(settle => this.#requests.set(ref, settle));
    }
    #emit(type, detail) { this.dispatchEvent(Object.assign(new Event(type), detail)); }
}
