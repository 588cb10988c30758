"""One folder for each vendor: it turns `ports.Provider` into that vendor's wire, and its failures into ours."""
