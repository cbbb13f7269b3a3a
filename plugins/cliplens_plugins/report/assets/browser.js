// The front half of the widget: the report in a frame of its own, without access to the notebook around it.
// `latent` of the model and the latent open in the page follow each other.
export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    frame.title = "Latents";
    frame.setAttribute("sandbox", "allow-scripts");
    frame.style.cssText = `width: 100%; height: ${model.get("height")}px; border: 1px solid #8884; border-radius: 6px`;
    const url = URL.createObjectURL(new Blob([model.get("page")], { type: "text/html" }));
    frame.src = url;
    const ask = () => frame.contentWindow?.postMessage({ cliplens: "latent", latent: model.get("latent") }, "*");
    const heard = (event) => {
      if (event.source !== frame.contentWindow || !event.data || event.data.cliplens !== "latent") return;
      if (event.data.latent === model.get("latent")) return;
      model.set("latent", event.data.latent);
      model.save_changes();
    };
    frame.addEventListener("load", () => { if (model.get("latent") !== null) ask(); });
    addEventListener("message", heard);
    model.on("change:latent", ask);
    el.append(frame);
    return () => {
      removeEventListener("message", heard);
      model.off("change:latent", ask);
      URL.revokeObjectURL(url);
    };
  },
};
