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
from models.trainers import reproducible

DATA, UNTIL, LAST = "build/demo/data", date(1998, 4, 8), date(1998, 4, 22)
events = Source(f"{DATA}/interactions.parquet", {"user_id": "user_id", "item_id": "item_id", "time": "time"})
items = Source(f"{DATA}/items.parquet", {"item_id": "item_id", "genre": "genre"})
inputs = Inputs(interactions=events, histories=None, users=None, items=items)
spec, options = FeatureSpec(item_features=("item_id", "genre"), history_length=50), FitOptions()
known = {"spec": spec, "vocabularies": fit_vocabularies(inputs, spec=spec, until=UNTIL, zone="UTC")}
catalogue, _ = encode_catalogue(inputs, **known)
with TemporaryDirectory() as scratch:
    engine = Engine(Path(scratch), "1GB", 2)
    told = read_sequences(inputs, catalogue=catalogue, until=LAST, zone="UTC", engine=engine, **known)

split = split_by_time(train_until=UNTIL, validate_until=LAST, zone="UTC")
train = mind_batches(told, split, spec=spec, options=options)
valid = mind_batches(told, split, spec=spec, options=options, training=False)
with reproducible(seed=1):
    mind = Mind(MindConfig(normalise=True, temperature=0.1, power=1.0), **known)
    model = mind_trainer(mind, told, split, options)
    model.compile(optimizer=keras.optimizers.Adam(0.003))
    model.fit(train, validation_data=valid, epochs=5, callbacks=[keras.callbacks.EarlyStopping(patience=1)])
    print(model.evaluate(valid, return_dict=True), model.predict(valid)[0].shape)
