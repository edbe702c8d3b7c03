// Search runs in a worker, which browsers refuse to pages opened as files. There, a hidden frame does a worker's work.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.title = "search"
      document.body.append(frame)
      const inner = frame.contentWindow
      const page = frame.contentDocument
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inner.importScripts = (...urls) => Promise.all(urls.map(one => new Promise((done, failed) => {
        const script = page.createElement("script")
        script.src = one
        script.onload = done
        script.onerror = failed
        page.body.append(script)
      })))
      inner.importScripts(url).then(() => {
        this.tell = data => inner.dispatchEvent(new MessageEvent("message", { data }))
        this.waiting.splice(0).forEach(this.tell)
      })
    }
    postMessage(data) {
      this.tell ? this.tell(data) : this.waiting.push(data)
    }
    terminate() {}
  }
  window.Worker = window.IFrameWorker
}
