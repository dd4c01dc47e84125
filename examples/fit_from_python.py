"""MIND through Keras from Python: compile, fit, evaluate, predict. Needs the demo's data (`make demo`)."""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from artifacts.bundle import FeatureSpec
from features.catalogue import encode_catalogue
from features.inputs import Inputs, Source
from features.ordered import Engine
from features.sequences import fit_vocabularies, read_sequences
from models.backend import keras
from models.examples import split_by_time
from models.fit import FitOptions, mind_batches, mind_trainer
from models.mind import Mind, MindConfig

DATA, LAST = Path("build/demo/data"), date(1998, 4, 22)
spec = FeatureSpec(item_features=("item_id", "genre"), history_length=50)
inputs = Inputs(
    interactions=Source(str(DATA / "interactions.parquet"), {name: name for name in ("user_id", "item_id", "time")}),
    histories=None,
    users=None,
    items=Source(str(DATA / "items.parquet"), {"item_id": "item_id", "genre": "genre"}),
)
split = split_by_time(train_until=date(1998, 4, 8), validate_until=LAST, zone="UTC")
known = {"spec": spec, "vocabularies": fit_vocabularies(inputs, spec=spec, until=date(1998, 4, 8), zone="UTC")}
catalogue, _ = encode_catalogue(inputs, **known)
with TemporaryDirectory() as scratch:
    engine = Engine(Path(scratch), "1GB", 2)
    events = read_sequences(inputs, catalogue=catalogue, until=LAST, zone="UTC", engine=engine, **known)

options = FitOptions(learning_rate=0.003)
mind = Mind(MindConfig(normalise=True, temperature=0.1, power=1.0), **known)
model = mind_trainer(mind, events, split, options)
train = mind_batches(events, split.train, spec=spec, options=options)
valid = mind_batches(events, split.valid, spec=spec, options=options, training=False)
model.compile(optimizer=keras.optimizers.Adam(options.learning_rate))
model.fit(train, validation_data=valid, epochs=3, callbacks=[keras.callbacks.EarlyStopping(patience=1)])
print(model.evaluate(valid, return_dict=True), model.predict(valid)[0].shape)
